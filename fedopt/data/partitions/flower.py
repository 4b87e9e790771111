"""The partitioners of Flower Datasets (flwr-datasets), by name: data.partition = "flwr:DirichletPartitioner"."""

from __future__ import annotations

import inspect
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from fedopt.data.partitions.base import Partition, TrainingSet
from fedopt.errors import PartitionImpossible
from fedopt.imports import optional
from fedopt.registry import nearest
from fedopt.section import wrong

LABEL, CLIENT, PLACE = "label", "client", "place"
"""Columns of the table that a partitioner divides; the last has the samples' numbers."""

BY_CLIENT = ("NaturalIdPartitioner", "GroupedNaturalIdPartitioner")
"""Partitioners that divide by the client that each sample names."""

OF_COLUMNS = ("VerticalEvenPartitioner", "VerticalSizePartitioner")
"""Partitioners that divide features, not samples."""

LARGEST_SEED = 2**31


class FlowerPartition(Partition):
    """The keys are the partitioner's arguments, with its own defaults; `num_partitions` is data.clients, `partition_by`
    the label (or the client, for NaturalId), and `seed` follows from run.seed.

    As in a FederatedDataset, the samples are shuffled before they are divided. A partitioner may leave some out.
    """

    alpha: float | tuple[float, ...] | None = None
    """Concentration of the Dirichlet distribution: one number, or one for each client."""
    min_partition_size: int | None = Field(None, ge=0)
    """The fewest samples of a client (DirichletPartitioner)."""
    self_balancing: bool | None = None
    """Whether a client with more than its share gets no more (DirichletPartitioner)."""
    shuffle: bool | None = None
    """Whether each client's samples are shuffled."""
    num_classes_per_partition: int | None = Field(None, ge=1)
    """Classes of each client (PathologicalPartitioner)."""
    class_assignment_mode: Literal["random", "deterministic", "first-deterministic"] | None = None
    """How these classes are chosen (PathologicalPartitioner)."""
    num_shards_per_partition: int | None = Field(None, ge=1)
    """Shards of each client (ShardPartitioner)."""
    shard_size: int | None = Field(None, ge=1)
    """Samples of a shard (ShardPartitioner)."""
    keep_incomplete_shard: bool | None = None
    """Whether the last shard may be smaller (ShardPartitioner)."""
    partition_sizes: tuple[int, ...] | None = Field(None, strict=False)
    """Samples of each client (SizePartitioner, InnerDirichletPartitioner)."""
    strictness: float | None = None
    """How strictly labels follow the order of clients, 0 to 1 (ContinuousPartitioner)."""
    distribution_array: tuple[tuple[float, ...], ...] | None = Field(None, strict=False)
    """Samples of each label over its shards (DistributionPartitioner)."""
    num_unique_labels_per_partition: int | None = Field(None, ge=1)
    """Labels of each client (DistributionPartitioner)."""
    preassigned_num_samples_per_label: int | None = Field(None, ge=0)
    """Samples of each label that a client gets first (DistributionPartitioner)."""
    rescale: bool | None = None
    """Whether the distribution is rescaled to the samples that there are (DistributionPartitioner)."""
    group_size: int | None = Field(None, ge=1)
    """Natural clients in each client (GroupedNaturalIdPartitioner)."""
    mode: Literal["allow-smaller", "allow-bigger", "drop-reminder", "strict"] | None = None
    """What becomes of natural clients that fill no group (GroupedNaturalIdPartitioner)."""
    sort_unique_ids: bool | None = None
    """Whether natural clients are sorted before they are grouped (GroupedNaturalIdPartitioner)."""

    @model_validator(mode="after")
    def _divides_samples(self) -> FlowerPartition:
        if self.after_prefix in OF_COLUMNS:
            raise wrong("partition", f"{self.name} divides features, not samples, among the clients")
        return self

    @property
    def needs_clients(self) -> bool:
        return self.after_prefix in BY_CLIENT

    def draw(self, samples: TrainingSet, clients: int, rng: np.random.Generator) -> list[np.ndarray]:
        datasets = optional("datasets", f"data.partition: {self.name}", "hf")
        order = rng.permutation(len(samples.labels))
        columns = {PLACE: order, LABEL: samples.labels[order]}
        if samples.natural_clients is not None:
            owner = np.empty(len(order), dtype=np.int64)
            for client, own in enumerate(samples.natural_clients):
                owner[own] = client
            columns[CLIENT] = owner[order]
        elif self.needs_clients:
            raise PartitionImpossible(f"data.partition: {self.name} needs data that name the client of each sample")
        try:
            partitioner = self._partitioner(clients, int(rng.integers(LARGEST_SEED)))
            partitioner.dataset = datasets.Dataset.from_dict(columns)
            found = int(partitioner.num_partitions)
            if found != clients:
                raise PartitionImpossible(
                    f"data.clients: {self.name} makes {found} clients of these data, not {clients}; "
                    f"set data.clients to {found}"
                )
            return [np.array(partitioner.load_partition(client)[PLACE][:], dtype=np.int64) for client in range(found)]
        except (ValueError, TypeError, IndexError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise PartitionImpossible(f"data.partition: {self.name} cannot divide these data: {reason}") from error

    def _partitioner(self, clients: int, seed: int) -> Any:
        kind = self._class()
        accepted = inspect.signature(kind).parameters
        given = {key: getattr(self, key) for key in FlowerPartition.model_fields if key != "name"}
        arguments = {key: _plain(key, value) for key, value in given.items() if value is not None}
        unknown = [key for key in arguments if key not in accepted]
        if unknown:
            raise PartitionImpossible(f"data.{unknown[0]}: {self.name} has no such argument")
        offered = {
            "num_partitions": clients,
            "partition_by": CLIENT if self.needs_clients else LABEL,
            "seed": seed,
        }
        arguments |= {key: value for key, value in offered.items() if key in accepted}
        needed = [name for name, argument in accepted.items() if argument.default is inspect.Parameter.empty]
        missing = [name for name in needed if name not in arguments]
        if missing:
            known = missing[0] in FlowerPartition.model_fields
            remedy = f"set data.{missing[0]}" if known else "it cannot be given in an experiment"
            raise PartitionImpossible(f"data.partition: {self.name} needs {missing[0]}; {remedy}")
        return kind(**arguments)

    def _class(self) -> type[Any]:
        module = optional("flwr_datasets.partitioner", f"data.partition: {self.name}", "hf")
        others = ("Partitioner", *OF_COLUMNS)
        known = [name for name in dir(module) if name.endswith("Partitioner") and name not in others]
        if self.after_prefix not in known:
            raise PartitionImpossible(
                f"data.partition: unknown partitioner {self.after_prefix!r}; {nearest(self.after_prefix, known)}"
            )
        found = getattr(module, self.after_prefix)
        assert isinstance(found, type)
        return found

    @property
    def pieces(self) -> int:
        return self.num_shards_per_partition or 1

    @property
    def title(self) -> str:
        return f"{self.name}({self.alpha:g})" if isinstance(self.alpha, float) else self.name


def _plain(key: str, value: Any) -> Any:
    """What the partitioners take: lists, and an array for the distribution."""
    if key == "distribution_array":
        return np.array(value)
    return list(value) if isinstance(value, tuple) else value
