"""Image folders: train/CLASS and test/CLASS with images in them or in folders below, read once into memory.

Classes and the order of their images are those of torchvision's ImageFolder (which does not read GIF).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image, UnidentifiedImageError
from pydantic import Field

from fedopt.data.dataset import Dataset, from_images
from fedopt.data.pictures import check_size, pixels, stacked
from fedopt.data.sources.base import OwnFiles
from fedopt.errors import DataUnavailable

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}


class Folder(OwnFiles):
    holds: ClassVar[str] = "a folder with train/CLASS and test/CLASS"

    image_size: int | None = Field(None, ge=1)
    """Side to which images are resized; without it they must all be of one size."""

    def load(self, clients: int, seed: int) -> Dataset:
        root = self.path
        for part in ("train", "test"):
            if not (root / part).is_dir():
                raise DataUnavailable(
                    f"data.path: {root.absolute()} has no folder {part}/; "
                    "an image folder holds train/CLASS/*.png and test/CLASS/*.png"
                )
        names = tuple(sorted(entry.name for entry in (root / "train").iterdir() if entry.is_dir()))
        strangers = sorted(e.name for e in (root / "test").iterdir() if e.is_dir() and e.name not in names)
        if strangers:
            raise DataUnavailable(f"data.path: class {strangers[0]} is in {root / 'test'} but not in train/")
        missing = [name for name in names if next(images_below(root / "train" / name), None) is None]
        if missing:
            raise DataUnavailable(empty_class("data.path", root / "train" / missing[0], len(missing) - 1))
        train, y_train = read_images(root / "train", names, self.image_size, "data.path")
        test, y_test = read_images(root / "test", names, self.image_size, "data.path")
        if train.shape[1:] != test.shape[1:]:
            raise DataUnavailable(
                f"data.path: training images are {_size(train)} and test images {_size(test)}; "
                "set data.image_size to resize them"
            )
        return from_images(train, y_train, test, y_test, names)

    @property
    def resized_to(self) -> int | None:
        return self.image_size


def read_images(part: Path, names: Sequence[str], side: int | None, key: str) -> tuple[np.ndarray, np.ndarray]:
    """All images of these classes as uint8 [n, C, H, W] (C is 1 where all are grey) and their labels.

    A class may have no folder below `part`. `key` is what the user gave the folder by.
    """
    files = [(file, label) for label, name in enumerate(names) for file in images_below(part / name)]
    if not files:
        raise DataUnavailable(f"{key}: no images below {part.absolute()}")
    images: list[np.ndarray] = []
    for file, _ in files:
        try:
            with Image.open(file) as image:
                images.append(pixels(image, side))
        except (UnidentifiedImageError, OSError) as error:
            raise DataUnavailable(f"{key}: {file} is not an image that can be read") from error
        check_size(f"{key}: {file}", images[-1], images[0])
    return stacked(images), np.array([label for _, label in files])


def images_below(folder: Path) -> Iterator[Path]:
    """The images in the folder and in those below, folder by folder in the order of their paths; links are followed."""
    for place, _, files in sorted(os.walk(folder, followlinks=True)):
        yield from (Path(place, file) for file in sorted(files) if Path(file).suffix.lower() in ENDINGS)


def empty_class(key: str, folder: Path, others: int = 0) -> str:
    more = f", nor in {others} other classes" if others else ""
    endings = ", ".join(sorted(ending.removeprefix(".") for ending in ENDINGS))
    return (
        f"{key}: there is no image in class {folder.name} ({folder}){more}; remove the folder, or fill it ({endings})"
    )


def _size(images: np.ndarray) -> str:
    channels, height, width = images.shape[1:]
    return f"{width} x {height} x {channels}"
