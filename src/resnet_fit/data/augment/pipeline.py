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

# Takes images, a generator and, if need be, phases.
BatchFunction = Callable[..., Any]


@dataclass(frozen=True)
class Unfinished:
    """Images as the host leaves them, and what `on_device.finish` is to do to them.

    Each step is an operation and its own random numbers.
    """

    images: Array
    steps: tuple[tuple[Operation, Array], ...]


def compose(operations: Sequence[Operation], host: int | None = None) -> BatchFunction:
    """Chain operations, in their order, into one function of a batch, a generator and phases.

    Phases ``[N]`` are for operations that alternate by epoch (`seeding.phases`); without them those
    draw as others do.

    The result is what calling them one after another gives, made a cache-sized piece at a time; the
    returned array is fresh at each call. Given ``host``, only so many operations are done at once
    and the result is `Unfinished`, whatever is left. Raises UserError for an order that cannot be
    meant.
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
        # Normalize as the last one writes to where the result is to be: a copy less.
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


def check_order(operations: Sequence[Operation]) -> None:
    """Raise UserError for operations that cannot be meant in this order."""
    normalized = False
    for op in operations:
        if normalized and op.grey_levels:
            raise UserError(
                f"{op.part_name} comes after normalize; it works on grey levels, put it before"
            )
        normalized = normalized or isinstance(op, Normalize)
