"""What a depth stands for: kinds and numbers of blocks, or layers of dense blocks.

Free of Paddle, so that a config can be checked without waiting for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

from resnet_fit.errors import UserError, listed

# He et al. 2015, table 1.
STAGES: dict[int, tuple[str, tuple[int, ...]]] = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}
# Section 4.2: n blocks in each of three stages, of 2 or 3 convolutions each; depth = this * n + 2.
CIFAR3_LAYERS = {"basic": 6, "bottleneck": 9}

# Huang et al. 2016, table 1 (161: in its first version): growth, and layers of each dense block.
DENSE_BLOCKS: dict[int, tuple[int, tuple[int, ...]]] = {
    121: (32, (6, 12, 24, 16)),
    161: (48, (6, 12, 36, 24)),
    169: (32, (6, 12, 32, 32)),
    201: (32, (6, 12, 48, 32)),
    264: (32, (6, 12, 64, 48)),
}


def resolve_depth(
    depth: int | Sequence[int], stem: str, block: str | None
) -> tuple[str, tuple[int, ...]]:
    """The name of a depth's block, and the number of blocks of each stage.

    Raises:
        UserError: there is no such depth; the message names those there are.
    """
    if isinstance(depth, Iterable) and not isinstance(depth, str):
        return block or "basic", _sizes(depth, "blocks of each stage")
    depth = _whole_number(depth, "stage sizes, as [2, 2, 2, 2]")
    if stem == "cifar3":
        return _cifar3_stages(depth, block)
    if depth not in STAGES:
        raise UserError(
            f"depth={depth} does not exist with stem='{stem}': choose {listed(STAGES)}, nearest "
            f"{_nearest(depth, STAGES)}; or stage sizes in a list. 6n+2 or 9n+2: stem='cifar3'."
        )
    name, sizes = STAGES[depth]
    if block not in (None, name):
        raise UserError(
            f"block='{block}' does not go with depth={depth}, which has {name} blocks: leave it "
            f"out, or give the stage sizes, depth={list(sizes)}."
        )
    return name, sizes


def _cifar3_stages(depth: int, block: str | None) -> tuple[str, tuple[int, ...]]:
    layers = {name: n for name, n in CIFAR3_LAYERS.items() if block in (None, name)}
    for name, per_block in layers.items():
        if depth > 2 and depth % per_block == 2:
            return name, (depth // per_block,) * 3
    forms = listed(
        f"{n}n+2 ({name} blocks: {n + 2}, {2 * n + 2}, ...)" for name, n in layers.items()
    )
    neighbours = [max(1, round((depth - 2) / n)) * n + 2 for n in layers.values()]
    raise UserError(
        f"depth={depth} does not exist with stem='cifar3': choose {forms}, nearest "
        f"{_nearest(depth, neighbours)}; or stage sizes in a list."
    )


def resolve_dense_depth(depth: int | Sequence[int], stem: str) -> tuple[int, tuple[int, ...]]:
    """The growth that belongs to a DenseNet's depth, and the number of layers of each dense block.

    Raises:
        UserError: there is no such depth; the message names those there are.
    """
    usual_growth = 12 if stem == "cifar" else 32
    if isinstance(depth, Iterable) and not isinstance(depth, str):
        return usual_growth, _sizes(depth, "layers of each dense block")
    depth = _whole_number(depth, "block sizes, as [6, 12, 24, 16]")
    if stem == "cifar":
        # Section 3: two convolutions a layer, three blocks; a stem, two transitions and the head.
        if depth < 10 or depth % 6 != 4:
            raise UserError(
                f"depth={depth} does not exist with stem='cifar': choose 6n+4 (10, 16, ..., 100), "
                f"nearest {max(1, round((depth - 4) / 6)) * 6 + 4}; or block sizes in a list."
            )
        return usual_growth, ((depth - 4) // 6,) * 3
    if depth not in DENSE_BLOCKS:
        raise UserError(
            f"depth={depth} does not exist with stem='{stem}': choose {listed(DENSE_BLOCKS)}, "
            f"nearest {_nearest(depth, DENSE_BLOCKS)}; or block sizes in a list. For 6n+4: "
            "stem='cifar'."
        )
    return DENSE_BLOCKS[depth]


def _sizes(sizes: Iterable[int], what: str) -> tuple[int, ...]:
    counts = [as_count(size) for size in sizes]
    if not counts or None in counts:
        raise UserError(f"depth={sizes!r}: expected the number of {what}, at least 1 each.")
    return tuple(count for count in counts if count is not None)


def _whole_number(depth: object, sizes: str) -> int:
    count = as_count(depth)
    if count is None:
        raise UserError(f"depth={depth!r}: expected a whole number or a list of {sizes}.")
    return count


def as_count(value: Any) -> int | None:
    """A whole number of at least 1 as an int, whatever its type; None for all else, and for True.

    NumPy's integers are not Python's: Paddle's layers refuse them.
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    return int(value) if whole and value >= 1 else None


def _nearest(depth: int, valid: Iterable[int]) -> int:
    return min(valid, key=lambda candidate: abs(candidate - depth))
