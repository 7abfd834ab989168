"""The settings of densely connected networks (Huang et al. 2016)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from resnet_fit.config.problems import Problem
from resnet_fit.config.registry import part
from resnet_fit.config.settings import PositiveInt
from resnet_fit.errors import UserError, listed
from resnet_fit.networks.families.network import Depth, Network, nearest, other_than_published

if TYPE_CHECKING:
    from paddle import nn

    from resnet_fit.runs.config import Config

# Huang et al. 2016, table 1 (161: in its first version): growth, and layers of each dense block.
BLOCKS: dict[int, tuple[int, tuple[int, ...]]] = {
    121: (32, (6, 12, 24, 16)),
    161: (48, (6, 12, 36, 24)),
    169: (32, (6, 12, 32, 32)),
    201: (32, (6, 12, 48, 32)),
    264: (32, (6, 12, 64, 48)),
}

Stem = Literal["imagenet", "cifar"]


@part("network", "densenet")
class DenseNet(Network):
    """A DenseNet-BC: each layer sees the output of all layers before it.

    Args:
        depth: 121, 161, 169, 201 or 264; with ``stem: cifar`` any 6n+4 (40, 100, 190, 250); or the
            number of layers of each dense block, as ``[6, 12, 24, 16]`` for 121.
        stem: ``imagenet``, a 7x7 convolution of stride 2, norm and max pool for images of 224 px;
            ``cifar``, a 3x3 convolution of stride 1 alone for 32 px (section 4).
        growth: channels that each layer adds: 32 (48 for 161), and 12 with ``stem: cifar``.
    """

    depth: Depth
    stem: Stem = "imagenet"
    growth: PositiveInt | None = None

    def problems(self, config: Config | None) -> Iterator[Problem]:
        yield from super().problems(config)
        try:
            self.blocks()
        except UserError as error:
            yield Problem(("depth",), str(error))

    def imagenet_problems(self) -> Iterator[Problem]:
        if self.stem != "imagenet":
            yield other_than_published("stem", self.stem, "imagenet")
            return
        with suppress(UserError):  # a depth that does not exist is told elsewhere
            growth, sizes = self.blocks()
            same = {d: g for d, (g, published) in BLOCKS.items() if published == sizes}
            if not same:
                yield other_than_published("depth", self.depth, listed(BLOCKS))
            elif growth not in same.values():
                yield other_than_published("growth", growth, listed(same.values()))

    def imagenet_name(self) -> str:
        return next(f"densenet{d}" for d, found in BLOCKS.items() if found == self.blocks())

    def blocks(self) -> tuple[int, tuple[int, ...]]:
        """The growth, and the number of layers of each dense block.

        Raises:
            UserError: there is no such depth; the message names those there are.
        """
        growth, sizes = self._by_depth()
        return self.growth or growth, sizes

    def _by_depth(self) -> tuple[int, tuple[int, ...]]:
        usual_growth = 12 if self.stem == "cifar" else 32
        depth = self.depth
        if isinstance(depth, list):
            return usual_growth, tuple(depth)
        if self.stem == "cifar":
            # Section 3: two convolutions a layer, three blocks; a stem, two transitions, the head.
            if depth < 10 or depth % 6 != 4:
                raise UserError(
                    f"{depth} does not exist with stem 'cifar': choose 6n+4 (10, 16, ..., 100), "
                    f"nearest {max(1, round((depth - 4) / 6)) * 6 + 4}; or block sizes in a list"
                )
            return usual_growth, ((depth - 4) // 6,) * 3
        if depth not in BLOCKS:
            raise UserError(
                f"{depth} does not exist with stem '{self.stem}': choose {listed(BLOCKS)}, "
                f"nearest {nearest(depth, list(BLOCKS))}; or block sizes in a list. For 6n+4: stem "
                "'cifar'"
            )
        return BLOCKS[depth]

    def build(self, classes: int, channels: int) -> nn.Layer:
        from resnet_fit.networks.dense import build

        return build(self, classes, channels)
