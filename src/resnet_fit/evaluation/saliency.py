"""Saliency maps: which pixels a prediction depends on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from resnet_fit.networks.dense import DenseNet
from resnet_fit.networks.residual import ResNet


def saliency(network: nn.Layer, images: Tensor, classes: np.ndarray) -> tuple[np.ndarray, str]:
    """The evidence of each pixel for a class. The network is not changed.

    For residual and dense networks, which end in average pooling and a linear layer: the class
    activation map (Zhou et al. 2016), which for these equals Grad-CAM of the last stage. For other
    networks, and if the last feature map has one pixel: the absolute gradient of the class's logit
    with respect to the pixel, maximum over channels (Simonyan et al. 2013).

    Args:
        network: in evaluation mode.
        images: ``[N, C, H, W]`` as the network takes them.
        classes: int64 ``[N]``, a class for each image.

    Returns:
        float32 ``[N, H, W]``, each map from 0 to 1, and the name of the method.
    """
    height, width = images.shape[2:]
    maps = class_activation_maps(network, images, classes)
    if maps is None:
        return _scaled(input_gradients(network, images, classes)), "input gradient"
    upright = [cv2.resize(m, (width, height), interpolation=cv2.INTER_LINEAR) for m in maps]
    return _scaled(np.stack(upright)), "class activation map"


def class_activation_maps(
    network: nn.Layer, images: Tensor, classes: np.ndarray
) -> np.ndarray | None:
    """The last feature maps, weighted by the head's weights of a class: ``[N, h, w]``.

    Their mean plus the head's bias is the class's logit. None for a network of another kind, and
    for maps of one pixel.
    """
    place = _last_stage(network)
    if place is None:
        return None
    stage, head, relu_follows = place
    with paddle.no_grad(), _output_of(stage) as seen:
        network(images)
    maps = F.relu(seen[0]) if relu_follows else seen[0]
    if maps.shape[2] * maps.shape[3] == 1:
        return None
    weights = head.weight.numpy()[:, classes]
    return np.einsum("nchw,cn->nhw", maps.numpy(), weights)


def input_gradients(network: nn.Layer, images: Tensor, classes: np.ndarray) -> np.ndarray:
    """The absolute gradient of a class's logit with respect to each pixel, ``[N, H, W]``."""
    images = images.detach()
    images.stop_gradient = False
    logits = network(images)
    wanted = F.one_hot(paddle.to_tensor(classes), logits.shape[1]) * logits
    # Paddle 2.6 can only do this for all weights at once. Their own `grad` stays as it is.
    weights = [weight for weight in network.parameters() if not weight.stop_gradient]
    gradient, *_ = paddle.grad(wanted.sum(), [images, *weights], allow_unused=True)
    return np.abs(gradient.numpy()).max(axis=1)


def _last_stage(network: nn.Layer) -> tuple[nn.Layer, nn.Linear, bool] | None:
    """The layer before the average pooling, the head, and whether a ReLU comes between them."""
    if isinstance(network, ResNet):
        return getattr(network, f"layer{network.num_stages}"), network.fc, False
    if isinstance(network, DenseNet):
        return network.batch_norm, network.out, True
    return None


@contextmanager
def _output_of(layer: nn.Layer) -> Iterator[list[Tensor]]:
    """Collect a layer's outputs; with a hook, every backend gives them as ``[N, C, H, W]``."""
    seen: list[Tensor] = []

    def note(_: nn.Layer, __: Any, output: Tensor) -> None:
        seen.append(output)

    hook = layer.register_forward_post_hook(note)
    try:
        yield seen
    finally:
        hook.remove()


def _scaled(maps: np.ndarray) -> np.ndarray:
    """Set negative evidence to 0 and scale each map to a maximum of 1."""
    maps = np.maximum(maps, 0).astype(np.float32)
    highest = maps.max(axis=(1, 2), keepdims=True)
    return maps / np.where(highest > 0, highest, 1)
