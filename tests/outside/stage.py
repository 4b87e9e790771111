"""Stochastic rounding to 8 bits with error feedback."""

from __future__ import annotations

import torch
from torch import Tensor

from fedopt.channel.base import BadPayload, ChannelKey, Payload, Stage
from fedopt.vectors.layout import Vectors


class EightBits(Stage):
    """Each vector becomes int8 numbers and one scale; what rounding left out is added to the next round's vector."""

    def client_state(self, like: Vectors) -> Vectors:
        return {name: torch.zeros_like(vector) for name, vector in like.items()}

    def send(self, payload: Payload, state: Vectors, key: ChannelKey) -> tuple[Payload, Vectors]:
        sent: dict[str, Tensor] = {}
        residuals: dict[str, Tensor] = {}
        rng = key.stream()
        for name, vector in payload.items():
            wanted = vector + state[name]
            scale = (wanted.abs().max() / 127).clamp(min=torch.finfo(wanted.dtype).tiny)
            noise = torch.from_numpy(rng.random(len(wanted))).to(wanted)
            levels = torch.floor(wanted / scale + noise).clamp(-127, 127).to(torch.int8)
            sent |= {f"{name}.levels": levels, f"{name}.scale": scale.reshape(1)}
            residuals[name] = wanted - levels.to(wanted) * scale
        return sent, residuals

    def receive(self, payload: Payload, like: Vectors) -> Payload:
        if payload.keys() != {f"{name}.{part}" for name in like for part in ("levels", "scale")}:
            raise BadPayload(f"it brings {sorted(payload)}, not levels and scales of {sorted(like)}")
        found: dict[str, Tensor] = {}
        for name, vector in like.items():
            levels, scale = payload[f"{name}.levels"], payload[f"{name}.scale"]
            if levels.dtype != torch.int8 or levels.shape != vector.shape or scale.shape != (1,):
                raise BadPayload(f"its {name} is {levels.dtype} {tuple(levels.shape)}")
            found[name] = levels.to(vector.dtype) * scale.to(vector.dtype)
        return found
