"""One experiment over several processes or machines with a device each, started by torchrun.

    torchrun --nproc-per-node 2 -m fedopt run --set algorithm.name=scaffold

Every rank holds all data and trains the clients whose number is its own modulo the number of ranks, so that client
states never move. Rank 0 plays the rounds and sends commands to the others. Updates are all-reduced, each to the very
bits that its rank computed (the others add zeros), so the run is that of a single process.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from clients.lanes.state import untouched_share
from fedopt.round.federation import Broadcast, Score, Update, WorkOrder
from fedopt.vectors.layout import Vectors
from simulations.virtual import VirtualFederation


def launched() -> bool:
    """Whether torchrun has started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def is_first() -> bool:
    """Whether this process is the one that speaks, and writes the run's directory."""
    return not launched() or int(os.environ["RANK"]) == 0


@contextmanager
def together() -> Iterator[None]:
    """Within, the ranks can talk to each other: by nccl between GPUs, else by gloo."""
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


@dataclass(frozen=True)
class Call:
    """What rank 0 asks of every rank."""

    what: str
    arguments: tuple[Any, ...] = ()


class RankedFederation:
    """All clients, seen from rank 0. Implements `fedopt.round.federation.Federation`."""

    trains_ahead = False

    def __init__(self, own: VirtualFederation) -> None:
        self._own, self._shard = own, Shard(own)
        self.name = f"{own.name}, {dist.get_world_size()} ranks"

    @property
    def samples(self) -> Sequence[int]:
        return self._own.samples

    def train(self, broadcast: Broadcast, orders: Sequence[WorkOrder]) -> Generator[Update, None, None]:
        bare = replace(broadcast, x=torch.empty(0), down={})
        self._everywhere(Call("train", (bare, list(orders), sorted(broadcast.down))))
        yield from self._shard.train(bare, orders, sorted(broadcast.down), broadcast)

    def evaluate(self, x: Tensor, round_: int, accepted: Mapping[int, int]) -> Sequence[Score]:
        if not self._own.is_personal:
            return self._own.evaluate(x, round_, accepted)
        self._everywhere(Call("evaluate", (x.cpu(), round_, dict(accepted))))
        return self._shard.evaluate(x.cpu(), round_, accepted)

    def mean_state(self, accepted: Mapping[int, int], share_of: Sequence[float]) -> Vectors:
        self._everywhere(Call("mean_state", (dict(accepted), list(share_of))))
        return self._shard.mean_state(accepted, share_of)

    def refused(self, client: int) -> None:
        """Does nothing: every client has answered, or will."""

    def commit(self, accepted: Mapping[int, int], ahead: bool = False) -> None:
        self._everywhere(Call("commit", (dict(accepted),)))
        self._shard.commit(accepted)

    def save(self, folder: Path, accepted: Mapping[int, int]) -> None:
        self._everywhere(Call("save", (folder, dict(accepted))))
        self._shard.save(folder, accepted)

    def prune(self, folder: Path, accepted: Mapping[int, int]) -> None:
        self._own.prune(folder, accepted)

    def restore(self, folder: Path, accepted: Mapping[int, int]) -> None:
        self._everywhere(Call("restore", (folder, dict(accepted))))
        self._shard.restore(folder, accepted)

    def close(self) -> None:
        self._everywhere(Call("close"))
        self._own.close()

    def _everywhere(self, call: Call) -> None:
        dist.broadcast_object_list([call], src=0)


class Shard:
    """The clients of one rank, and the collective operations on them; every rank calls the same ones in turn."""

    def __init__(self, own: VirtualFederation) -> None:
        self._own, self._rank, self._ranks = own, dist.get_rank(), dist.get_world_size()

    def serve(self) -> None:
        """Does what rank 0 asks, until it is over."""
        while True:
            box: list[Call | None] = [None]
            dist.broadcast_object_list(box, src=0)
            call = box[0]
            assert call is not None
            if call.what == "close":
                self._own.close()
                return
            answer = getattr(self, call.what)(*call.arguments)
            if isinstance(answer, Generator):
                for _ in answer:
                    pass

    def train(
        self, bare: Broadcast, orders: Sequence[WorkOrder], names: Sequence[str], broadcast: Broadcast | None = None
    ) -> Generator[Update, None, None]:
        """The updates of all ranks. `bare` has no vectors; rank 0 alone has them, under `names` beside x."""
        like = self._own.like
        x = torch.empty_like(like) if broadcast is None else broadcast.x.clone()
        down = {name: torch.empty_like(like) if broadcast is None else broadcast.down[name].clone() for name in names}
        for vector in (x, *down.values()):
            dist.broadcast(vector, src=0)
        own = [order for order in orders if self._is_own(order.client)]
        found: dict[int, Update] = {}
        for update in self._own.train(replace(bare, x=x, down=down), own) if own else ():
            found[update.client] = replace(update, up={name: part.clone() for name, part in update.up.items()})
        gathered: list[dict[int, Update]] = [{} for _ in range(self._ranks)]
        empty = torch.empty(0)
        without = {client: replace(update, up=dict.fromkeys(update.up, empty)) for client, update in found.items()}
        dist.all_gather_object(gathered, without)
        everyone = {client: update for of_rank in gathered for client, update in of_rank.items()}
        for client in sorted(everyone):
            update = everyone[client]
            mine = found[client].up if client in found else {}
            up = {name: mine[name] if name in mine else torch.zeros_like(like) for name in update.up}
            for name in sorted(up):
                dist.all_reduce(up[name])
            yield replace(update, up=up)

    def evaluate(self, x: Tensor, round_: int, accepted: Mapping[int, int]) -> Sequence[Score]:
        """Scores of all ranks, each rank's of its own clients' models."""
        scores = self._own.evaluate(x.to(self._own.like.device), round_, self._of_own(accepted))
        gathered: list[list[Score]] = [[] for _ in range(self._ranks)]
        dist.all_gather_object(gathered, [score for score in scores if self._is_own(score.client)])
        return sorted((score for of_rank in gathered for score in of_rank), key=lambda score: score.client)

    def mean_state(self, accepted: Mapping[int, int], share_of: Sequence[float]) -> Vectors:
        # Rank 0 counts the clients that have not taken part yet.
        untouched = untouched_share(accepted, share_of) if self._rank == 0 else 0.0
        sums = self._own.states.sums(self._of_own(accepted), share_of, untouched)
        for name in sorted(sums):
            for limb in sums[name].limbs():
                dist.all_reduce(limb)
        return {name: exact.total() for name, exact in sums.items()}

    def commit(self, accepted: Mapping[int, int]) -> None:
        self._own.commit(self._of_own(accepted))

    def save(self, folder: Path, accepted: Mapping[int, int]) -> None:
        self._own.save(folder, accepted)
        dist.barrier()  # the checkpoint counts once every rank has written its part

    def restore(self, folder: Path, accepted: Mapping[int, int]) -> None:
        self._own.restore(folder, self._of_own(accepted))
        dist.barrier()

    def _of_own(self, accepted: Mapping[int, int]) -> dict[int, int]:
        return {client: round_ for client, round_ in accepted.items() if self._is_own(client)}

    def _is_own(self, client: int) -> bool:
        return client % self._ranks == self._rank
