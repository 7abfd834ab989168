"""What images and their mirror images reach together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from paddle import Tensor

from resnet_fit.callbacks.second_evaluation import SecondEvaluation


class FlipAverage(SecondEvaluation):
    """Test-time augmentation by horizontal flips: the mean of both logits, as ``flip_top1`` etc.

    Reported beside the plain figures and never in their place: published results count one view.
    Images are ``[N, C, H, W]``.
    """

    prefix: ClassVar[str] = "flip_"

    @contextmanager
    def applied(self) -> Iterator[None]:
        network = self.model.network
        forward = network.forward

        def both(images: Tensor, *rest: Any) -> Tensor:
            return (forward(images, *rest) + forward(images.flip(3), *rest)) / 2

        network.forward = both
        try:
            yield
        finally:
            del network.forward  # the class's own is seen again
