"""Evaluates the mean of the logits of each image and of its mirror image."""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from paddle import Tensor, nn

from resnet_fit.callbacks.second_evaluation import SecondEvaluation


class FlipAverage(SecondEvaluation):
    """Test-time augmentation by horizontal flips: the mean of both logits, as ``flip_top1`` etc.

    Reported beside the plain figures and never in their place: published results count one view.
    Images are ``[N, C, H, W]``.
    """

    prefix: ClassVar[str] = "flip_"
    name: ClassVar[str] = "mirrored"
    views: ClassVar[int] = 2

    @contextmanager
    def applied(self) -> Iterator[None]:
        network = self.model.network
        forward = network.forward
        own = vars(network).get("forward")  # a compiled or casting one, or the class's

        def both(self: nn.Layer, images: Tensor, *rest: Any) -> Tensor:
            return (forward(images, *rest) + forward(images.flip(3), *rest)) / 2

        network.forward = types.MethodType(both, network)
        try:
            yield
        finally:
            if own is None:
                del network.forward
            else:
                network.forward = own
