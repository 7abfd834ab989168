"""How many threads compute an operation; may be changed between any two operations.

One OpenMP, the ``libiomp5`` in Paddle's wheel, serves Paddle's own operations, MKL and oneDNN. Its
number of threads belongs to the Python thread that asks; a new one starts with that of
``OMP_NUM_THREADS``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import paddle
from paddle.base import core

from resnet_fit.errors import UserError, require


def threads() -> int:
    """How many threads compute an operation of this Python thread."""
    return _openmp().omp_get_max_threads()


def set_threads(count: int) -> None:
    """Let ``count`` threads compute each operation of this Python thread from the next one on.

    Sums over images are then taken in another order: results differ by rounding.

    Raises:
        UserError: not a whole number above 0, or Paddle's OpenMP is not the one known here.
    """
    require(type(count) is int and count > 0, "threads", count, "a whole number above 0")
    _openmp()
    core.set_num_threads(count)  # MKL, which has a number of its own, and OpenMP


@contextmanager
def computing_with(count: int) -> Iterator[None]:
    """The number of OpenMP's threads changed for a moment."""
    before = threads()
    _openmp().omp_set_num_threads(count)
    try:
        yield
    finally:
        _openmp().omp_set_num_threads(before)


@cache
def _openmp() -> ctypes.PyDLL:
    """The library that Paddle has loaded; calls so short keep Python's lock."""
    file = Path(paddle.__file__).parent / "libs" / "libiomp5.so"
    try:
        return ctypes.PyDLL(str(file))
    except OSError:
        raise UserError(
            f"the number of threads cannot be told or changed: there is no {file.name} in the "
            "installed Paddle"
        ) from None
