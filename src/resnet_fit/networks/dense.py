"""Densely connected networks (Huang et al. 2016, "Densely connected convolutional networks")."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import paddle
from paddle import Tensor, nn

from resnet_fit.backends.backend import HasBackend
from resnet_fit.errors import UserError
from resnet_fit.networks.arguments import as_counts, check_image_size, check_images
from resnet_fit.networks.blocks import BackendLayer, Layers, Stage, run
from resnet_fit.networks.families import densenet as settings
from resnet_fit.networks.families.network import IMAGENET
from resnet_fit.networks.pretrained import weights_file
from resnet_fit.networks.weights import load_weights

# Channels between a layer's two convolutions, in multiples of the growth (section 3).
BOTTLENECK = 4


class Stem(BackendLayer):
    """The first convolution; the one for ImageNet is followed by a norm, a ReLU and a max pool."""

    def __init__(self, kind: str, in_channels: int, out_channels: int, layers: Layers) -> None:
        super().__init__()
        kernel_size, stride = (7, 2) if kind == "imagenet" else (3, 1)
        self._conv = layers.conv(in_channels, out_channels, kernel_size, stride)
        self._batch_norm = layers.norm(out_channels) if kind == "imagenet" else None

    def compute(self, x: Tensor) -> Tensor:
        ops = self.operations
        x = ops.convolve(self._conv, x)
        if self._batch_norm is None:
            return x
        return ops.max_pool(ops.normalize(self._batch_norm, x, relu=True))


class NormConv(BackendLayer):
    """A norm, a ReLU and a convolution: the order of He et al. 2016, "Identity mappings"."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, layers: Layers
    ) -> None:
        super().__init__()
        self._batch_norm = layers.norm(in_channels)
        self._conv = layers.conv(in_channels, out_channels, kernel_size)

    def compute(self, x: Tensor) -> Tensor:
        ops = self.operations
        return ops.convolve(self._conv, ops.normalize(self._batch_norm, x, relu=True))


class DenseLayer(BackendLayer):
    """Appends ``growth`` channels, made of all those before by a 1x1 and a 3x3 convolution."""

    def __init__(self, in_channels: int, growth: int, layers: Layers) -> None:
        super().__init__()
        self.bn_ac_func1 = NormConv(in_channels, BOTTLENECK * growth, 1, layers)
        self.bn_ac_func2 = NormConv(BOTTLENECK * growth, growth, 3, layers)

    def compute(self, x: Tensor) -> Tensor:
        ops = self.operations
        x, kept = ops.fork(x)
        x = run(ops, self.bn_ac_func1, x)
        return ops.concat(kept, run(ops, self.bn_ac_func2, x))


class Transition(BackendLayer):
    """Fewer channels by a 1x1 convolution, and a quarter of the pixels by an average pool."""

    def __init__(self, in_channels: int, out_channels: int, layers: Layers) -> None:
        super().__init__()
        self.conv_ac_func = NormConv(in_channels, out_channels, 1, layers)

    def compute(self, x: Tensor) -> Tensor:
        ops = self.operations
        return ops.average_pool(run(ops, self.conv_ac_func, x))


class DenseNet(HasBackend, nn.Layer):
    """Dense blocks with transitions between them, a stem and one linear layer; see
    :func:`densenet`.

    Maps images ``[N, in_channels, H, W]`` to logits ``[N, num_classes]``. Sublayers have the names
    of paddle.vision, whose weights load as they are: ``conv1_func``, then ``db_conv_2 tr_conv2_blk
    db_conv_3 ...`` as the paper's stages begin at 2, ``batch_norm`` and ``out``. Weights of ``out``
    start uniform within 1 / sqrt(features), its biases at zero.
    """

    def __init__(
        self, chosen: settings.DenseNet, num_classes: int, in_channels: int, layers: Layers
    ) -> None:
        super().__init__()
        growth, block_sizes = chosen.blocks()
        self.stem = chosen.stem
        self.in_channels = in_channels
        self.num_blocks = len(block_sizes)
        self._image_size_checked = False
        channels = 2 * growth
        self.conv1_func = Stem(self.stem, in_channels, channels, layers)
        for stage, size in enumerate(block_sizes, start=2):
            if stage > 2:
                transition = Transition(channels, channels // 2, layers)
                self.add_sublayer(f"tr_conv{stage - 1}_blk", transition)
                channels //= 2
            block = Stage()
            for index in range(1, size + 1):
                block.add_sublayer(f"conv{stage}_{index}", DenseLayer(channels, growth, layers))
                channels += growth
            self.add_sublayer(f"db_conv_{stage}", block)
        self.batch_norm = layers.norm(channels)
        bound = 1 / math.sqrt(channels)
        self.out = nn.Linear(
            channels,
            num_classes,
            weight_attr=paddle.ParamAttr(initializer=nn.initializer.Uniform(-bound, bound)),
            bias_attr=paddle.ParamAttr(initializer=nn.initializer.Constant(0.0)),
        )

    def forward(self, images: Tensor) -> Tensor:
        if paddle.in_dynamic_mode():
            self._check(images)
        ops = self.operations
        x = run(ops, self.conv1_func, ops.enter(images))
        for stage in range(2, self.num_blocks + 2):
            if stage > 2:
                x = run(ops, getattr(self, f"tr_conv{stage - 1}_blk"), x)
            x = run(ops, getattr(self, f"db_conv_{stage}"), x)
        return self.out(ops.mean(ops.normalize(self.batch_norm, x, relu=True)))

    def _check(self, images: Tensor) -> None:
        check_images(images, self.in_channels)
        pixels = min(images.shape[2:])
        smallest = 2 ** (self.num_blocks - 1)
        if self.stem == "imagenet":
            smallest = 4 * smallest - 3
        if pixels < smallest:
            raise UserError(
                f"images of {pixels} px are too small: {self.num_blocks} dense blocks behind "
                f"stem='{self.stem}' need {smallest} px or more."
            )
        if not self._image_size_checked:
            self._image_size_checked = True
            check_image_size(self.stem, pixels)


def densenet(
    depth: int | Sequence[int],
    num_classes: int = 1000,
    stem: settings.Stem = "imagenet",
    growth: int | None = None,
    in_channels: int = 3,
    weights: str | os.PathLike[str] | None = None,
    layers: Layers | None = None,
) -> DenseNet:
    """Build a DenseNet-BC that maps images ``[N, in_channels, H, W]`` to logits
    ``[N, num_classes]``.

    BC (Huang et al. 2016, section 3) stands for bottlenecks, a 1x1 convolution to 4 * growth
    channels in each layer, and for compression, transitions that halve the channels. The stem
    gives 2 * growth channels. Convolutions start as in the authors' program, by He's formula with
    fan-out (:class:`Layers`).

    Args:
        depth: 121, 161, 169, 201 or 264; with ``stem="cifar"`` any 6n+4 (40, 100, 190, 250); or the
            number of layers of each dense block, as ``[6, 12, 24, 16]`` for 121.
        stem: ``imagenet``: 7x7 convolution of stride 2, norm and max pool, for images of 224 px;
            ``cifar``: 3x3 of stride 1 alone, for 32 px, as in the paper's section 4.
        growth: channels that each layer adds: 32 (48 for 161), and 12 with ``stem="cifar"``.
        weights: a file or folder for :func:`load_weights`, or ``"imagenet"`` for what paddle.vision
            publishes, which is fetched once. If it has another number of classes,
            ``out`` alone keeps its random start, and a warning says so. Not in a static graph,
            where ``load_weights`` comes after ``paddle.Model.prepare``.
        layers: the kinds of layer to build from; see :class:`Layers`.

    Raises:
        UserError: an argument is none of the above, the weights do not fit, or images are too
            small to be halved by every transition.
    """
    chosen = settings.DenseNet.of(
        weights=IMAGENET if weights == IMAGENET else None, depth=depth, stem=stem, growth=growth
    )
    network = build(chosen, num_classes, in_channels, layers)
    if weights is not None:
        load_weights(network, weights_file(chosen, weights, network.in_channels))
    return network


def build(
    chosen: settings.DenseNet, num_classes: int, in_channels: int, layers: Layers | None = None
) -> DenseNet:
    """The network that settings describe, with new weights."""
    num_classes, in_channels = as_counts(num_classes=num_classes, in_channels=in_channels)
    return DenseNet(chosen, num_classes, in_channels, layers or Layers())
