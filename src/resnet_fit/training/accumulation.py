"""Several batches that train as one big batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import paddle
from paddle import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


def accumulated(
    loss: Loss, optimizer: paddle.optimizer.Optimizer, batches: int, batch_size: int
) -> Loss:
    """A loss for `paddle.Model`, by which accumulated batches train as one big batch.

    `paddle.Model.fit` adds up the gradients of ``batches`` losses, each a mean over its batch, and
    then steps the optimizer. What the optimizer gets here is the gradient of the mean over all
    images of such a group, also where the group is not full: the last one of an epoch may hold
    fewer batches, and its last batch fewer images. Gradients are clipped after that. Batch norm
    still normalises each batch alone.

    Each loss is weighted as in a group of full batches, and the sum of gradients is corrected by
    the images that the group really held, which are known only when the optimizer steps.

    Args:
        loss: a mean over the images of a batch.
        optimizer: the one that `fit` steps; its ``minimize`` is replaced.
        batches: how many `fit` accumulates.
        batch_size: images in a full batch.
    """
    if batches == 1:
        return loss
    full = batches * batch_size
    images_held = 0
    minimize = optimizer.minimize

    def weighted(logits: Tensor, labels: Tensor) -> Tensor:
        nonlocal images_held
        value = loss(logits, labels)
        if logits.stop_gradient:  # an evaluation
            return value
        images_held += logits.shape[0]
        return value / (full / logits.shape[0])

    def minimize_mean(*arguments: Any, **options: Any) -> Any:
        nonlocal images_held
        if images_held != full:
            scale_gradients(optimizer, full / images_held)
        images_held = 0
        return minimize(*arguments, **options)

    optimizer.minimize = minimize_mean
    return weighted


def scale_gradients(optimizer: paddle.optimizer.Optimizer, factor: float) -> None:
    """Multiply the gradients of all parameters that have one."""
    with paddle.no_grad():
        for parameter in optimizer._parameter_list:
            if parameter.grad is not None:
                parameter.grad.scale_(factor)
