"""A list of operations as one function of a batch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from resnet_fit.data.augment.normalize import Normalize
from resnet_fit.data.augment.operation import Array, Operation
from resnet_fit.errors import UserError

# Takes images, a generator and optional phases.
BatchFunction = Callable[..., Any]


@dataclass(frozen=True)
class Unfinished:
    """Images after the host's operations, and the steps left for `on_device.finish`.

    Each step is an operation and its random numbers.
    """

    images: Array
    steps: tuple[tuple[Operation, Array], ...]


def compose(operations: Sequence[Operation], host: int | None = None) -> BatchFunction:
    """Chain operations, in their order, into one function of a batch, a generator and phases.

    Phases ``[N]`` are for operations that alternate by epoch (`seeding.phases`); without phases
    these use random numbers like the others.

    The result equals applying the operations one after another, but is computed in pieces that fit
    the CPU cache. Each call returns a new array. With ``host`` only the first ``host`` operations
    are applied, and the result is always `Unfinished`. Raises UserError for a wrong order.
    """
    check_order(operations)
    now = tuple(operations)[:host]
    piece_values = max((op.piece_values for op in now), default=Operation.piece_values)
    draws = [op.draws for op in operations]
    columns = [
        slice(end - n, end) for n, end in zip(draws, itertools.accumulate(draws), strict=True)
    ]

    def run(images: Array, rng: np.random.Generator, phases: Array | None = None) -> Any:
        uniforms = rng.random((len(images), sum(draws)))
        for op, column in zip(operations, columns, strict=True):
            if op.alternates and phases is not None:
                uniforms[:, column] = phases[:, None]
        # A Normalize at the end writes straight into the result array, which saves a copy.
        last = now[-1] if now and isinstance(now[-1], Normalize) else None
        steps = [(op, uniforms[:, column]) for op, column in zip(operations, columns, strict=True)]
        before, rest = steps[: len(now) - bool(last)], steps[len(now) :]
        step = max(1, piece_values // max(1, math.prod(images.shape[1:])))
        result: Array | None = None
        for start in range(0, len(images), step):
            part = slice(start, start + step)
            piece = images[part]
            for op, own in before:
                piece = op.apply(piece, own[part])
            if result is None:
                dtype = np.float32 if last else piece.dtype
                result = np.empty((len(images), *piece.shape[1:]), dtype)
            if last:
                last.apply(piece, uniforms[part, :0], out=result[part])
            else:
                result[part] = piece
        result = images.copy() if result is None else result
        return result if host is None else Unfinished(result, tuple(rest))

    return run


def first_normalize(operations: Sequence[Any]) -> int:
    """The index of the first `Normalize`; without one, the number of operations."""
    found = (i for i, op in enumerate(operations) if isinstance(op, Normalize))
    return next(found, len(operations))


def check_order(operations: Sequence[Operation]) -> None:
    """Raise UserError for an operation on pixel values that comes after `Normalize`."""
    normalized = False
    for op in operations:
        if normalized and op.grey_levels:
            raise UserError(
                f"{op.part_name} comes after normalize; it works on pixel values, put it before"
            )
        normalized = normalized or isinstance(op, Normalize)
