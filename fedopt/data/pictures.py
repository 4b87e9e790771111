"""Images of the library PIL as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from fedopt.errors import DataUnavailable


def pixels(image: Image.Image, side: int | None) -> np.ndarray:
    """uint8 [H, W] of a grey image, [H, W, 3] of any other; resized to side x side unless that is None."""
    plain = image if image.mode in ("L", "RGB") else image.convert("RGB")
    return np.asarray(plain.resize((side, side)) if side else plain)


def check_size(place: str, image: np.ndarray, first: np.ndarray) -> None:
    """DataUnavailable, which begins with `place`, if an image has another size than the first one."""
    if image.shape[:2] != first.shape[:2]:
        raise DataUnavailable(
            f"{place} is {image.shape[1]} x {image.shape[0]} pixels, the first image "
            f"{first.shape[1]} x {first.shape[0]}; set data.image_size to resize them"
        )


def stacked(images: Sequence[np.ndarray]) -> np.ndarray:
    """uint8 [n, C, H, W] from images of one size; C is 1 where all are grey."""
    if any(image.ndim == 3 for image in images):
        colored = [image if image.ndim == 3 else np.stack([image] * 3, axis=-1) for image in images]
        return np.ascontiguousarray(np.stack(colored).transpose(0, 3, 1, 2))
    return np.ascontiguousarray(np.stack(images)[:, None])


def pixels_of(images: Iterable[Image.Image | None], side: int | None, place: str) -> list[np.ndarray]:
    """Each image's pixels, all of one size; messages begin with `place`."""
    found: list[np.ndarray] = []
    for number, image in enumerate(images):
        if image is None:
            raise DataUnavailable(f"{place} has no image in sample {number}")
        found.append(pixels(image, side))
        check_size(f"{place}: sample {number}", found[-1], found[0])
    return found
