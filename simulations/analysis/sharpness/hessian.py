"""Eigenvalues of a Hessian that is known by its products with vectors alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

MANY = 1000
"""Entries up to which the smallest eigenvalue is that of the dense matrix, and from which on the largest have fewer
digits, since a product takes time."""

Product = Callable[[Tensor], Tensor]
"""H v [P] of v [P], float64, for a symmetric H."""


@dataclass(frozen=True)
class Trace:
    mean: float
    error: float
    """The standard error of the mean."""


@dataclass(frozen=True)
class Density:
    """The eigenvalues' distribution as points with weights that add up to 1."""

    places: list[float]
    weights: list[float]


def largest(product: Product, size: int, count: int, seed: int) -> tuple[list[float], Tensor]:
    """The algebraically largest eigenvalues, falling, and the eigenvector of the first, [P]; by ARPACK's implicitly
    restarted Lanczos (scipy.sparse.linalg.eigsh)."""
    values, vectors = _extreme(product, size, count, seed)
    order = np.argsort(values)[::-1]
    return values[order].tolist(), torch.from_numpy(np.ascontiguousarray(vectors[:, order[0]]))


def smallest(product: Product, size: int, seed: int, top: float | None = None) -> float:
    """The algebraically smallest eigenvalue, to 1e-4 of the largest, `top`, where the matrix is large.

    It is looked for as the largest of top - H: Lanczos measures its accuracy by the eigenvalue itself, and would look
    for a zero, as every loss with directions without effect has some, without end.
    """
    if size <= MANY:
        return float(np.linalg.eigvalsh(_dense(product, size))[0])
    if top is None:
        top = largest(product, size, 1, seed)[0][0]
    shift = max(top, np.finfo(np.float64).tiny)
    return shift - float(_extreme(lambda v: shift * v - product(v), size, 1, seed, 1e-4)[0][0])


def trace(product: Product, size: int, probes: int, source: torch.Generator) -> Trace:
    """Hutchinson's estimate: the mean of v' H v over vectors v of random signs."""
    found = [float(v @ product(v)) for v in (_signs(size, source) for _ in range(probes))]
    return Trace(float(np.mean(found)), float(np.std(found, ddof=1) / probes**0.5) if probes > 1 else float("nan"))


def density(product: Product, size: int, probes: int, steps: int, source: torch.Generator) -> Density:
    """By stochastic Lanczos quadrature (Ghorbani, Krishnan, Xiao 2019, arXiv:1901.10159): the eigenvalues of the
    tridiagonal matrices, with the squared first entries of their eigenvectors as weights, a mean over probes."""
    places, weights = list[float](), list[float]()
    for _ in range(probes):
        diagonal, beside = _lanczos(product, torch.randn(size, generator=source, dtype=torch.float64), steps)
        matrix = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
        values, vectors = np.linalg.eigh(matrix)
        places += values.tolist()
        weights += (vectors[0] ** 2 / probes).tolist()
    order = np.argsort(places)
    return Density([places[i] for i in order], [weights[i] for i in order])


def _lanczos(product: Product, start: Tensor, steps: int) -> tuple[list[float], list[float]]:
    """Diagonal and off-diagonal of the tridiagonal matrix; every vector is made orthogonal to all before it."""
    basis = [start / torch.linalg.vector_norm(start)]
    diagonal, beside = list[float](), list[float]()
    for _ in range(min(steps, len(start))):
        following = product(basis[-1])
        diagonal.append(float(following @ basis[-1]))
        for _ in range(2):  # once is not enough in finite precision
            for one in basis:
                following = following - (following @ one) * one
        norm = float(torch.linalg.vector_norm(following))
        if len(diagonal) == min(steps, len(start)) or norm < 1e-10 * max(1.0, max(map(abs, diagonal))):
            break
        beside.append(norm)
        basis.append(following / norm)
    return diagonal, beside


def _dense(product: Product, size: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    columns = torch.stack([product(unit) for unit in torch.eye(size, dtype=torch.float64)]).numpy()
    found: np.ndarray[tuple[int, int], np.dtype[np.float64]] = (columns + columns.T) / 2
    return found


def _extreme(
    product: Product, size: int, count: int, seed: int, tolerance: float = 1e-6
) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], np.ndarray[tuple[int, int], np.dtype[np.float64]]]:
    """The algebraically largest eigenvalues and their vectors, rising."""
    if size <= max(2 * count, 32):  # ARPACK needs more entries than eigenvalues
        values, vectors = np.linalg.eigh(_dense(product, size))
        return values[-count:], vectors[:, -count:]
    from scipy.sparse.linalg import LinearOperator, eigsh

    operator = LinearOperator(
        (size, size), matvec=lambda v: product(torch.from_numpy(v.reshape(-1).copy())).numpy(), dtype=np.float64
    )
    start = np.random.default_rng(seed).standard_normal(size)
    values, vectors = eigsh(operator, k=count, which="LA", v0=start, tol=tolerance if size > MANY else 1e-10)
    return values, vectors


def _signs(size: int, source: torch.Generator) -> Tensor:
    return torch.randint(0, 2, (size,), generator=source).double() * 2 - 1
