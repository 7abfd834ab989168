"""Residual networks and their plain twins (He et al. 2015, "Deep residual learning")."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import paddle
from paddle import Tensor, nn

from resnet_fit.backends.backend import HasBackend
from resnet_fit.networks.arguments import as_counts, check_image_size, check_images
from resnet_fit.networks.blocks import (
    BasicBlock,
    BottleneckBlock,
    Layers,
    Stage,
    make_shortcut,
    run,
)
from resnet_fit.networks.families import resnet as settings
from resnet_fit.networks.families.network import IMAGENET
from resnet_fit.networks.families.resnet import Block, Shortcut, Stem, StrideOn
from resnet_fit.networks.pretrained import weights_file
from resnet_fit.networks.weights import load_weights

BLOCKS: dict[str, type[BasicBlock] | type[BottleneckBlock]] = {
    "basic": BasicBlock,
    "bottleneck": BottleneckBlock,
}


class ResNet(HasBackend, nn.Layer):
    """Stages of residual blocks between a stem and one linear layer; see :func:`resnet`.

    Maps images ``[N, in_channels, H, W]`` to logits ``[N, num_classes]``. Sublayers are named
    ``conv1 bn1 layer1 layer2 ... fc`` as in torchvision and paddle.vision. Weights of ``fc`` start
    uniform within 1 / sqrt(features), as torch's linear layers do.
    """

    def __init__(
        self, chosen: settings.ResNet, num_classes: int, in_channels: int, layers: Layers
    ) -> None:
        super().__init__()
        block_name, stage_sizes = chosen.stages()
        block, channels = BLOCKS[block_name], chosen.first_width()
        self.stem = chosen.stem
        self.in_channels = in_channels
        self.num_stages = len(stage_sizes)
        self._image_size_checked = False
        options: dict[str, Any] = {
            "last_norm_weight": 0.0 if chosen.zero_init_residual else 1.0,
            "stride_on": chosen.stride_on,
        }
        if block is BottleneckBlock:
            options["groups"] = chosen.groups

        kernel_size, stride = (7, 2) if self.stem == "imagenet" else (3, 1)
        self.conv1 = layers.conv(in_channels, channels, kernel_size, stride)
        self.bn1 = layers.norm(channels)

        count = 0
        stages = zip(stage_sizes, chosen.widths(), chosen.all_strides(), strict=True)
        for stage, (size, stage_width, stage_stride) in enumerate(stages):
            out_channels = stage_width * block.expansion
            if block is BottleneckBlock:
                options["inner"] = stage_width * chosen.width_per_group // 64 * chosen.groups
            blocks = []
            for index in range(size):
                stride = stage_stride if index == 0 else 1
                # The first block is left out least, the last one most (section 3, equation 4).
                count += 1
                options["drop"] = chosen.stochastic_depth * count / sum(stage_sizes)
                shortcut = make_shortcut(chosen.shortcut, channels, out_channels, stride, layers)
                blocks.append(block(channels, stage_width, stride, shortcut, layers, **options))
                channels = out_channels
            self.add_sublayer(f"layer{stage + 1}", Stage(*blocks))

        bound = 1 / math.sqrt(channels)
        self.fc = nn.Linear(
            channels,
            num_classes,
            weight_attr=paddle.ParamAttr(initializer=nn.initializer.Uniform(-bound, bound)),
            bias_attr=paddle.ParamAttr(initializer=nn.initializer.Uniform(-bound, bound)),
        )

    def forward(self, images: Tensor) -> Tensor:
        if paddle.in_dynamic_mode():
            self._check(images)
        ops = self.operations
        x = ops.convolve(self.conv1, ops.enter(images))
        x = ops.normalize(self.bn1, x, relu=True)
        if self.stem == "imagenet":
            x = ops.max_pool(x)
        for stage in range(1, self.num_stages + 1):
            x = run(ops, getattr(self, f"layer{stage}"), x)
        return self.fc(ops.mean(x))

    def _check(self, images: Tensor) -> None:
        check_images(images, self.in_channels)
        if not self._image_size_checked:
            self._image_size_checked = True
            check_image_size(self.stem, min(images.shape[2:]))


def resnet(
    depth: int | Sequence[int],
    num_classes: int = 1000,
    stem: Stem = "imagenet",
    shortcut: Shortcut = "projection",
    stride_on: StrideOn = "3x3",
    zero_init_residual: bool = False,
    stochastic_depth: float = 0.0,
    width: int | Sequence[int] | None = None,
    in_channels: int = 3,
    weights: str | os.PathLike[str] | None = None,
    block: Block | None = None,
    layers: Layers | None = None,
    groups: int = 1,
    width_per_group: int = 64,
    strides: Sequence[int] | None = None,
    stem_width: int | None = None,
) -> ResNet:
    """Build a residual network that maps images ``[N, in_channels, H, W]`` to logits
    ``[N, num_classes]``.

    Args:
        depth: 18, 34 (basic blocks), 50, 101, 152 (bottleneck blocks); with ``stem="cifar3"`` any
            6n+2 (basic: 20, 32, 44, 56, 110) or 9n+2 (bottleneck: 29, 47, 83). Where both fit, as
            164, blocks are basic unless ``block`` is given. Or the number of blocks of each stage,
            as ``[2, 2, 2, 2]`` for 18.
        stem: ``imagenet``: 7x7 convolution of stride 2 and a max pool, for images of 224 px;
            ``cifar``: 3x3 of stride 1, for 32 px; ``cifar3``: the same before the three narrow
            stages of He et al. 2015, section 4.2.
        shortcut: where a block changes its shape, ``projection`` (the paper's option B, section
            3.3), ``average``, the same behind a mean of 2x2 pixels (ResNet-D of He et al. 2018,
            "Bag of tricks"), or ``zero-pad`` (option A, which the paper uses with ``cifar3``);
            ``none`` removes every shortcut: the plain network.
        stride_on: what halves the images in a stage's first block: the ``3x3`` convolution
            (torchvision, paddle.vision), a bottleneck's first ``1x1`` (the paper), or ``pool``, a
            max pool of 3x3 behind the first 3x3 convolution (Page 2018, "How to train your
            ResNet", part 4).
        zero_init_residual: start each block's last norm at zero, so that each block starts as its
            shortcut (Goyal et al. 2017, section 5.1).
        stochastic_depth: how often the last block is left out for an image in training, below 1;
            the others less, in proportion to their place (Huang et al. 2016).
        width: channels of the first stage, doubled by each later one, 64, or 16 for ``cifar3``; or
            those of each stage, as ``[64, 128, 256]``.
        weights: a file or folder for :func:`load_weights`, or ``"imagenet"`` for what paddle.vision
            publishes, which is fetched once. If it has another number of classes,
            ``fc`` alone keeps its random start, and a warning says so. Not in a static graph,
            where ``load_weights`` comes after ``paddle.Model.prepare``.
        block: ``basic`` or ``bottleneck``, where the depth leaves the choice.
        layers: the kinds of layer to build from; see :class:`Layers`.
        groups: of a bottleneck's 3x3 convolution; ``resnet(50, groups=32, width_per_group=4)`` is
            ResNeXt-50 32x4d (Xie et al. 2017).
        width_per_group: channels of each of these groups, where the first stage has 64;
            ``resnet(50, width_per_group=128)`` is Wide ResNet-50-2.
        strides: by what each stage divides the size of the images, 1 or 2: by default 1 for the
            first stage and 2 for the others.
        stem_width: channels of the first convolution; by default those of the first stage.

    Raises:
        UserError: an argument is none of the above, or the weights do not fit.
    """
    chosen = settings.ResNet.of(
        weights=IMAGENET if weights == IMAGENET else None,
        depth=depth,
        stem=stem,
        shortcut=shortcut,
        stride_on=stride_on,
        block=block,
        width=width,
        zero_init_residual=zero_init_residual,
        stochastic_depth=stochastic_depth,
        groups=groups,
        width_per_group=width_per_group,
        strides=strides,
        stem_width=stem_width,
    )
    network = build(chosen, num_classes, in_channels, layers)
    if weights is not None:
        load_weights(network, weights_file(chosen, weights, network.in_channels))
    return network


def build(
    chosen: settings.ResNet, num_classes: int, in_channels: int, layers: Layers | None = None
) -> ResNet:
    """The network that settings describe, with new weights."""
    num_classes, in_channels = as_counts(num_classes=num_classes, in_channels=in_channels)
    return ResNet(chosen, num_classes, in_channels, layers or Layers())


def plain(depth: int | Sequence[int], num_classes: int = 1000, **options: Any) -> ResNet:
    """The same network without its shortcuts, as in the degradation study of He et al. 2015.

    Takes the ``options`` of :func:`resnet` except ``shortcut``.
    """
    return resnet(depth, num_classes, shortcut="none", **options)
