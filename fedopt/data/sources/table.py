"""A table of the user's own: a CSV, Parquet or Arrow (Feather) file with numeric columns and a column of labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from fedopt.data.arrays import dataset_of
from fedopt.data.dataset import Dataset
from fedopt.data.frames import Columns, Frame, parts_of
from fedopt.data.sources.base import AbsolutePath, OwnFiles
from fedopt.errors import DataUnavailable
from fedopt.imports import optional
from fedopt.section import wrong

READERS = {
    ".csv": "read_csv",
    ".tsv": "read_csv",
    ".parquet": "read_parquet",
    ".pq": "read_parquet",
    ".feather": "read_feather",
    ".arrow": "read_feather",
}
"""pandas' function for each ending."""


class Table(OwnFiles):
    holds: ClassVar[str] = "a .csv, .parquet, .feather or .arrow file"

    test: AbsolutePath | None = Field(None, strict=False)
    """A second file with the test samples; without one, data.validation holds a share of the first out."""
    label: str = "label"
    """The column of labels: whole numbers or texts. Classes are its values in sorted order."""
    client: str | None = None
    """The column that names each sample's client, for the partition natural, which is then the default."""
    features: tuple[str, ...] = Field((), strict=False)
    """The columns of features, in this order; by default all that are not the label, the client or in `drop`."""
    drop: tuple[str, ...] = Field((), strict=False)
    """Columns to leave out."""
    targets: Literal["classes", "numbers"] = "classes"
    """Whether the label is a class or a number to predict, for which the default partition is iid."""
    standardize: bool = True
    """Whether each feature is shifted and scaled to mean 0 and variance 1 over the training set."""

    @model_validator(mode="after")
    def _consistent(self) -> Table:
        if self.features and self.drop:
            raise wrong("drop", "give features or drop, not both")
        if self.client == self.label:
            raise wrong("client", f"the column {self.label!r} is the label already")
        return self

    @property
    def has_clients(self) -> bool:
        return self.client is not None

    @classmethod
    def usual_partition(cls, keys: Mapping[str, Any]) -> str:
        member = keys.get("name")
        client = member.client if isinstance(member, Table) else keys.get("client")
        targets = member.targets if isinstance(member, Table) else keys.get("targets")
        return "natural" if client else "iid" if targets == "numbers" else "dirichlet"

    @property
    def standardizes(self) -> bool:
        return self.standardize

    def load(self, clients: int, seed: int) -> Dataset:
        place = f"data.path: {self.path.name}"
        columns = Columns(self.label, self.client, self.features, self.drop, self.targets == "numbers")
        test = None if self.test is None else read_frame(self.test, "data.test")
        return dataset_of(place, *parts_of(place, read_frame(self.path, "data.path"), test, columns))


def read_frame(file: Path, key: str) -> Frame:
    """The whole table; `key` is what the user gave the file by."""
    reader = READERS.get(_ending(file))
    if reader is None:
        raise DataUnavailable(f"{key}: {file.name} has none of the endings {', '.join(READERS)}")
    if not file.is_file():
        raise DataUnavailable(f"{key}: there is no file {file}")
    pandas = optional("pandas", "data.name: table", "tables")
    if reader != "read_csv":
        optional("pyarrow", f"{key}: {file.name}", "tables")
    arguments = {"sep": "\t"} if _ending(file) == ".tsv" else {}
    try:
        frame = getattr(pandas, reader)(file, **arguments)
    # What pandas and pyarrow raise over a file that is damaged, or is something else, derives from these.
    except (ValueError, OSError, EOFError, RuntimeError, KeyError, TypeError, MemoryError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataUnavailable(f"{key}: {file} cannot be read as a table ({reason})") from error
    if not len(frame):
        raise DataUnavailable(f"{key}: {file} has no rows")
    return frame


def _ending(file: Path) -> str:
    """Without that of a compressed file: .csv of table.csv.gz."""
    endings = [ending.lower() for ending in file.suffixes]
    return endings[-2] if len(endings) > 1 and endings[-1] in (".gz", ".xz", ".bz2", ".zip") else "".join(endings[-1:])
