"""Random crops and flips of a minibatch's images, as keyed draws of the client: the same on any engine and lanes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True)
class Augmentation:
    """What becomes of each image of a minibatch: a window of its size, cut at random from the image with `crop` pixels
    of zeros around it, and then its mirror image in half of all cases, if `flip` is true."""

    crop: int
    flip: bool

    def draw(self, steps: int, width: int, rng: np.random.Generator) -> np.ndarray:
        """For each place in a round's minibatches the window's first row and column, and 1 for a mirror image: int64
        [steps, width, 3]."""
        drawn = np.zeros((steps, width, 3), dtype=np.int64)
        drawn[..., :2] = rng.integers(0, 2 * self.crop + 1, (steps, width, 2))
        if self.flip:
            drawn[..., 2] = rng.integers(0, 2, (steps, width))
        return drawn

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Images [n, C, H, W] with the draws [n, 3] of each. Pixels are copied: no bit depends on the device."""
        n, channels, height, width = images.shape
        row, column, mirrored = (part[:, None] for part in drawn.unbind(1))
        rows = row + torch.arange(height, device=images.device)
        across = torch.arange(width, device=images.device)
        columns = column + torch.where(mirrored == 1, width - 1 - across, across)
        wide = pad(images, (self.crop,) * 4)
        wide = wide.gather(2, rows[:, None, :, None].expand(n, channels, height, wide.shape[3]))
        return wide.gather(3, columns[:, None, None, :].expand(n, channels, height, width))
