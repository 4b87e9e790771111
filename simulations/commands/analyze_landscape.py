"""`fedopt analyze landscape`: a run's loss on lines and planes through its models.

Imports that load torch are inside the functions, so that `--help` does not wait for it.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedopt.commands.options import command
from fedopt.errors import InvalidExperiment
from simulations.analysis import FOLDER
from simulations.commands.analyzing import MODELS, Again, AnalysisOut
from simulations.commands.demonstrating import Clock, DemoJson, present_all
from simulations.commands.points_done import PointsDone

if TYPE_CHECKING:
    from simulations.analysis.landscape.asked import Asked
    from simulations.analysis.result import Result

app = command("landscape")


@app.command(
    epilog="Example:  fedopt analyze landscape runs/a --line final,runs/b --plane client:0,client:1,final --clients 5"
)
def landscape(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The directory of a run.")],
    line: Annotated[
        list[str] | None,
        typer.Option("--line", metavar="FROM,TO", help=f"A line between two models: {MODELS}; may be repeated."),
    ] = None,
    plane: Annotated[
        list[str] | None,
        typer.Option(
            "--plane",
            metavar="A,B,C",
            help="The plane through three models; or random: random directions around the final one. May be repeated.",
        ),
    ] = None,
    trajectory: Annotated[
        bool, typer.Option("--trajectory", help="The path of the models that run.keep_models has kept.")
    ] = False,
    barriers: Annotated[
        int | None,
        typer.Option(min=2, help="Barriers between every two of so many clients' models, from client 0 on."),
    ] = None,
    clients: Annotated[
        int, typer.Option(min=0, help="So many clients' own losses on the planes, from client 0 on.")
    ] = 0,
    points: Annotated[int, typer.Option(min=3, max=401, help="Points on a line and along a side of a plane.")] = 25,
    span: Annotated[
        float, typer.Option(help="How far the random plane reaches, in lengths of the filters; above 0.")
    ] = 1.0,
    samples: Annotated[int, typer.Option(min=1, help="Samples of each loss.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the samples and of the directions.")] = 0,
    float64: Annotated[
        bool, typer.Option("--float64", help="Compute planes in float64 too, as lines and barriers are.")
    ] = False,
    again: Again = False,
    out: AnalysisOut = None,
    as_json: DemoJson = False,
) -> None:
    """Draw a run's loss on lines and planes through its models, and barriers between them.

    Without --line, --plane, --trajectory or --barriers: the line from the initial to the final model, and the random
    plane, in whose directions every filter has the length of the model's (Li et al. 2018).
    """
    from simulations.analysis.landscape.asked import RANDOM, Asked, named

    if not 0 < span < float("inf"):
        raise InvalidExperiment(f"--span {span:g}: give a length above 0")
    is_default = not (line or plane or trajectory or barriers)
    lines = ["initial,final"] if is_default else dict.fromkeys(line or [])
    planes = [RANDOM] if is_default else dict.fromkeys(plane or [])
    asked = Asked(
        lines=[(names[0], names[1]) for names in (named("--line", text, 2) for text in lines)],
        planes=[(RANDOM,) if text == RANDOM else named("--plane", text, 3) for text in planes],
        trajectory=trajectory,
        barriers=barriers or 0,
        clients=clients,
        points=points,
        span=span,
        samples=samples,
        seed=seed,
        is_exact=float64,
    )
    present_all(_drawn(directory, asked, again), out or directory / FOLDER, as_json)


def _drawn(directory: Path, asked: Asked, again: bool) -> list[Result]:
    import torch

    from simulations.analysis.landscape.asked import AskedOf
    from simulations.analysis.landscape.work import Evaluations
    from simulations.analysis.runs.cache import Cache
    from simulations.analysis.runs.evaluation import Evaluation, Losses, cores
    from simulations.analysis.runs.of_run import AnalyzedRun

    say = Clock()
    found = AskedOf(asked, AnalyzedRun.read(directory))
    parts, cache = found.parts(say), Cache(directory, again, say)
    exact = Evaluation(found.objectives, torch.float64)
    evaluations = Evaluations(exact, exact if asked.is_exact else Evaluation(found.objectives, torch.float32))
    works = [part.works() for part in parts]
    keys = [found.key(of_part) for of_part in works]
    left = [
        work
        for part, key, of_part in zip(parts, keys, works, strict=True)
        for work in of_part
        if not cache.has(part.kind, key)
    ]
    if left:
        losses = sum(work.losses for work in left)
        say(f"about {evaluations.seconds(left):.0f} s: {losses} losses, {cores()} at a time")
    results: list[Result] = []
    with PointsDone(sum(len(work.points) for work in left), say) as done:
        for part, key, of_part in zip(parts, keys, works, strict=True):
            compute = partial(evaluations.of_all, of_part, done)
            results += part.results(cache.part(part.kind, list[Losses], key, compute))
    return results
