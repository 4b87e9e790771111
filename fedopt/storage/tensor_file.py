"""Tensors on disk: safetensors files with a checksum and metadata. They contain data only, never code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from fedopt.errors import BrokenRun
from fedopt.storage.files import replace_file
from fedopt.vectors.layout import Vectors, fingerprint


def client_file(client: int, round_: int) -> str:
    """The name of the file with a client's state after that round."""
    return f"client-{client:06d}-round-{round_:06d}.safetensors"


def write_tensors(file: Path, tensors: Vectors, about: Mapping[str, int | str]) -> None:
    """Replaces `file` atomically. `about` is stored as metadata and checked when the file is read."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {key: str(value) for key, value in about.items()} | {"sha256": fingerprint(plain)}
    replace_file(file, safetensors.torch.save(plain, metadata))


def read_tensors(file: Path, like: Vectors, about: Mapping[str, int | str]) -> dict[str, Tensor]:
    """The tensors of `file`, on the device of `like`, with the names, shapes and dtypes of `like`.

    BrokenRun, with the reason, for a file that is missing, torn or edited, or whose metadata are not `about`.
    """
    try:
        with safetensors.safe_open(file, framework="pt") as content:
            metadata = content.metadata() or {}
            found = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 (not a dict)
    except FileNotFoundError as error:
        raise BrokenRun(f"{file} is missing") from error
    except (safetensors.SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise BrokenRun(f"{file} is torn: {error}") from error
    if metadata.get("sha256") != fingerprint(found):
        raise BrokenRun(f"{file} was changed after it was written: its checksum does not match")
    for key, value in about.items():
        if metadata.get(key) != str(value):
            raise BrokenRun(f"{file} is not what belongs here: its {key} is {metadata.get(key)}, not {value}")
    if found.keys() != like.keys():
        raise BrokenRun(f"{file} holds {sorted(found)}, expected {sorted(like)}")
    for name, tensor in like.items():
        if found[name].shape != tensor.shape or found[name].dtype != tensor.dtype:
            raise BrokenRun(
                f"{file}: {name} is {found[name].dtype} {tuple(found[name].shape)}, "
                f"expected {tensor.dtype} {tuple(tensor.shape)}"
            )
    return {name: tensor.to(like[name].device) for name, tensor in found.items()}
