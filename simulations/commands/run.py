"""`fedopt run`: one experiment as virtual clients in this process."""

from __future__ import annotations

from rich.console import Console

from fedopt.commands.options import AsJson, ExperimentFile, Out, Overrides, Quiet, Resume, command
from fedopt.commands.telling import chosen_experiment, conclude, introduce

app = command("run")


@app.command(epilog="Example:  fedopt run --set algorithm.name=scaffold --set run.rounds=100 --out runs/scaffold")
def run(
    experiment: ExperimentFile = None,
    overrides: Overrides = None,
    out: Out = None,
    resume: Resume = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Run one experiment as virtual clients in this process.

    Writes experiment.toml, metrics.jsonl, model.safetensors, summary.json and checkpoint/ into the run's
    directory. Ctrl-C saves first and says how to go on; so does a run that was killed, with --resume.
    """
    settings = chosen_experiment(experiment, overrides or [], out, resume)
    console = Console(stderr=True)
    observers = introduce(settings, console, quiet)

    from simulations.embedded import resume as resume_run
    from simulations.embedded import run as start_run

    history = (
        resume_run(resume, overrides or [], observers) if resume is not None else start_run(settings, out, observers)
    )
    conclude(history, console, quiet, as_json)
