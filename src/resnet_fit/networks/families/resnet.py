"""The settings of residual networks (He et al. 2015, "Deep residual learning")."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from resnet_fit.config.problems import Problem
from resnet_fit.config.registry import part
from resnet_fit.config.settings import Below1, PositiveInt
from resnet_fit.errors import UserError, listed
from resnet_fit.networks.families.network import (
    Depth,
    Network,
    Width,
    nearest,
    other_than_published,
)

if TYPE_CHECKING:
    from paddle import nn

    from resnet_fit.runs.config import Config

# He et al. 2015, table 1: kind of block, and blocks of each stage.
STAGES: dict[int, tuple[str, tuple[int, ...]]] = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}
# Section 4.2: n blocks in each of three stages, of 2 or 3 convolutions each; depth = this * n + 2.
CIFAR3_LAYERS = {"basic": 6, "bottleneck": 9}
# How many times its width a block's output has in channels.
EXPANSION = {"basic": 1, "bottleneck": 4}
WIDTHS = {"imagenet": 64, "cifar": 64, "cifar3": 16}
# What paddle.vision has weights for: depth, groups and width of a group by its name.
PUBLISHED = {f"resnet{depth}": (depth, 1, 64) for depth in STAGES} | {
    "resnext50_32x4d": (50, 32, 4),
    "resnext50_64x4d": (50, 64, 4),
    "resnext101_32x4d": (101, 32, 4),
    "resnext101_64x4d": (101, 64, 4),
    "resnext152_32x4d": (152, 32, 4),
    "resnext152_64x4d": (152, 64, 4),
    "wide_resnet50_2": (50, 1, 128),
    "wide_resnet101_2": (101, 1, 128),
}

Stem = Literal["imagenet", "cifar", "cifar3"]
Shortcut = Literal["projection", "average", "zero-pad", "none"]
StrideOn = Literal["3x3", "1x1", "pool"]
Block = Literal["basic", "bottleneck"]


@part("network", "resnet")
class ResNet(Network):
    """A residual network of basic or bottleneck blocks, or its plain twin without shortcuts.

    Args:
        depth: 18, 34 (basic blocks), 50, 101, 152 (bottleneck blocks); with ``stem: cifar3`` any
            6n+2 (basic: 20, 32, 44, 56, 110) or 9n+2 (bottleneck: 29, 47, 83). Where both fit, as
            164, blocks are basic unless ``block`` is given. Or the number of blocks of each stage,
            as ``[2, 2, 2, 2]`` for 18.
        stem: ``imagenet``, a 7x7 convolution of stride 2 and a max pool for images of 224 px;
            ``cifar``, a 3x3 convolution of stride 1 for 32 px; ``cifar3``, the same before the
            three narrow stages of section 4.2.
        shortcut: where a block changes its shape, ``projection`` (option B, section 3.3),
            ``average``, the same behind a mean of 2x2 pixels (ResNet-D of He et al. 2018), or
            ``zero-pad`` (option A); ``none`` removes every shortcut.
        stride_on: what halves the images in a stage's first block, the ``3x3`` convolution
            (torchvision, paddle.vision), a bottleneck's first ``1x1`` (the paper), or ``pool``, a
            max pool behind the first 3x3 (Page 2018), which costs more time and learns faster.
        block: ``basic`` or ``bottleneck``, where the depth leaves the choice.
        width: channels of the first stage, doubled by each later one, 64, or 16 for ``cifar3``; or
            those of each stage, as ``[64, 128, 256]``.
        strides: by what each stage divides the size of the images, 1 or 2: by default 1 for the
            first stage and 2 for the others.
        stem_width: channels of the first convolution; by default those of the first stage.
        whiten: whether the first convolution's filters are eigenvectors of patches of the training
            images, scaled so that their outputs have variance one, and are not trained (Page 2019;
            Jordan 2024): for short trainings.
        groups: of a bottleneck's 3x3 convolution; 32 with ``width_per_group: 4`` make a ResNeXt
            (Xie et al. 2017). On a CPU Paddle itself computes convolutions in groups.
        width_per_group: channels of each group, where the first stage has 64; 128 with one group
            makes a Wide ResNet-50-2 (Zagoruyko and Komodakis 2016).
        zero_init_residual: whether each block's last norm starts at zero, so that each block starts
            as its shortcut (Goyal et al. 2017, section 5.1).
        stochastic_depth: how often the last block is left out for an image in training; the others
            less, in proportion to their place (Huang et al. 2016).
    """

    depth: Depth
    stem: Stem = "imagenet"
    shortcut: Shortcut = "projection"
    stride_on: StrideOn = "3x3"
    block: Block | None = None
    width: Width | None = None
    strides: list[Literal[1, 2]] | None = None
    stem_width: PositiveInt | None = None
    whiten: bool = False
    groups: PositiveInt = 1
    width_per_group: PositiveInt = 64
    zero_init_residual: bool = False
    stochastic_depth: Below1 = 0.0

    def problems(self, config: Config | None) -> Iterator[Problem]:
        yield from super().problems(config)
        try:
            block, sizes = self.stages()
        except UserError as error:
            yield Problem(("depth",), str(error))
            return
        for key in ("width", "strides"):
            values = getattr(self, key)
            if isinstance(values, list) and len(values) != len(sizes):
                yield Problem(
                    (key,),
                    f"expected {len(sizes)} values, one for each stage, received {values}",
                )
                return
        channels = [self.first_width(), *(w * EXPANSION[block] for w in self.widths())]
        if self.shortcut == "zero-pad" and channels != sorted(channels):
            yield Problem(
                ("shortcut",), f"zero-pad cannot leave out channels, and they go {channels}"
            )
        if self.stride_on == "1x1" and block == "basic":
            yield Problem(
                ("stride_on",),
                f"1x1 needs bottleneck blocks; those of depth {self.depth} are basic",
            )
        if self.whiten and self.weights is not None:
            yield Problem(("whiten",), "would replace the first layer of model.weights")
        for key in ("groups", "width_per_group"):
            if getattr(self, key) != type(self).model_fields[key].default and block == "basic":
                yield Problem(
                    (key,), f"needs bottleneck blocks; those of depth {self.depth} are basic"
                )
        if block == "bottleneck" and min(self.widths()) * self.width_per_group < 64:
            yield Problem(
                ("width_per_group",),
                f"{self.width_per_group} leaves no channel in the 3x3 convolutions of a stage of "
                f"width {min(self.widths())}: it is for width 64",
            )
        if self.zero_init_residual and self.shortcut == "none":
            yield Problem(
                ("zero_init_residual",), "needs shortcuts: without, every output would be zero"
            )
        if self.stochastic_depth and self.shortcut == "none":
            yield Problem(("stochastic_depth",), "needs shortcuts to leave blocks out around")

    def stages(self) -> tuple[str, tuple[int, ...]]:
        """The kind of block, and the number of blocks of each stage.

        Raises:
            UserError: there is no such depth; the message names those there are.
        """
        if isinstance(self.depth, list):
            return self.block or "basic", tuple(self.depth)
        if self.stem == "cifar3":
            return _cifar3_stages(self.depth, self.block)
        if self.depth not in STAGES:
            raise UserError(
                f"{self.depth} does not exist with stem '{self.stem}': choose {listed(STAGES)}, "
                f"nearest {nearest(self.depth, list(STAGES))}; or stage sizes in a list. 6n+2 or "
                "9n+2: stem 'cifar3'"
            )
        block, sizes = STAGES[self.depth]
        if self.block not in (None, block):
            raise UserError(
                f"{self.depth} has {block} blocks, not {self.block}: leave block out, or give the "
                f"stage sizes, {list(sizes)}"
            )
        return block, sizes

    def imagenet_problems(self) -> Iterator[Problem]:
        published: dict[str, Any] = {
            "stem": "imagenet",
            "shortcut": "projection",
            "stride_on": "3x3",
        }
        received = {key: getattr(self, key) for key in published}
        with suppress(UserError):  # a depth that does not exist is told elsewhere
            usual = ResNet(depth=self.depth, block=self.block)
            published |= usual._shape()
            received |= self._shape()
        for key, expected in published.items():
            if received[key] != expected:
                yield other_than_published(key, received[key], expected)
                return
        with suppress(UserError):  # a depth that does not exist is told elsewhere
            if self._published_depth() is None:
                yield other_than_published("depth", self.depth, listed(STAGES))
            elif self._published_name() is None:
                names = [n for n, p in PUBLISHED.items() if p[0] == self._published_depth()]
                given = f"{self.groups} with width_per_group {self.width_per_group}"
                yield other_than_published("groups", given, f"those of {listed(names)}")

    def imagenet_name(self) -> str:
        name = self._published_name()
        assert name is not None  # there are no `imagenet_problems`
        return name

    def _published_depth(self) -> int | None:
        """The depth that has these stages, which may be given as a list."""
        return next((depth for depth, stages in STAGES.items() if stages == self.stages()), None)

    def _published_name(self) -> str | None:
        wanted = (self._published_depth(), self.groups, self.width_per_group)
        return next((name for name, found in PUBLISHED.items() if found == wanted), None)

    def _shape(self) -> dict[str, Any]:
        return {
            "width": self.widths(),
            "strides": self.all_strides(),
            "stem_width": self.first_width(),
        }

    def widths(self) -> list[int]:
        """Channels of each stage; those of bottleneck blocks give four times as many."""
        if isinstance(self.width, list):
            return self.width
        first = self.width or WIDTHS[self.stem]
        return [first * 2**stage for stage in range(len(self.stages()[1]))]

    def all_strides(self) -> list[int]:
        """By what each stage divides the size of the images."""
        usual = [1] + [2] * (len(self.stages()[1]) - 1)
        return usual if self.strides is None else list(self.strides)

    def first_width(self) -> int:
        """Channels of the first convolution."""
        return self.stem_width or self.widths()[0]

    def whitened(self) -> str | None:
        return "conv1" if self.whiten else None

    def build(self, classes: int, channels: int) -> nn.Layer:
        from resnet_fit.networks.residual import build

        return build(self, classes, channels)


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
        f"{depth} does not exist with stem 'cifar3': choose {forms}, nearest "
        f"{nearest(depth, neighbours)}; or stage sizes in a list"
    )
