"""What a depth stands for: a kind of block, and how many of them each stage has.

Free of Paddle, so that a config can be checked without waiting for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from resnet_fit.errors import UserError

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


def resolve_depth(
    depth: int | Sequence[int], stem: str, block: str | None
) -> tuple[str, tuple[int, ...]]:
    """The name of a depth's block, and the number of blocks of each stage.

    Raises:
        UserError: there is no such depth; the message names those there are.
    """
    if isinstance(depth, (list, tuple)):
        if not depth or not all(is_count(size) for size in depth):
            raise UserError(
                f"depth={depth!r}: expected the number of blocks of each stage, at least 1 each."
            )
        return block or "basic", tuple(depth)
    if not is_count(depth):
        raise UserError(
            f"depth={depth!r}: expected a whole number or a list of stage sizes, as [2, 2, 2, 2]."
        )
    assert isinstance(depth, int)
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


def is_count(value: object) -> bool:
    """Whether a value is a whole number of at least 1 (True is none)."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def listed(values: Iterable[object]) -> str:
    """``a, b or c``."""
    *first, last = (str(value) for value in values)
    return f"{', '.join(first)} or {last}" if first else last


def _nearest(depth: int, valid: Iterable[int]) -> int:
    return min(valid, key=lambda candidate: abs(candidate - depth))
