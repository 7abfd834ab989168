"""One optimizer step over several processes: what is added up before it, and only there.

Gradients are sums over the batches that the processes were dealt. Running statistics of batch norms
follow one another as they do in one process: each process notes what each of its batches adds, and
all of them then apply the whole group's additions in the batches' order. With two processes and two
batches a step, both come out equal to one process's to the last bit; with more, gradients are added
in another order, which is a matter of rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import paddle
from paddle import Tensor, nn

from resnet_fit import parallel
from resnet_fit.backends import replace_forward
from resnet_fit.data.dealing import Dealer
from resnet_fit.training.accumulation import Loss, scale_gradients

# Gradients with fewer numbers are joined before they are added up: each addition takes 0.1 to 0.5
# milliseconds, however small it is.
SMALL = 1 << 18


class Reduction:
    """What the processes do before each optimizer step; see `accumulated` for one process.

    Args:
        network: its ``forward`` is replaced.
        optimizer: the one that `fit` steps; its ``minimize`` is replaced.
        dealer: knows which batch is in hand.
        batches: how many a step accumulates, over all processes.
        batch_size: images in a full batch.
    """

    def __init__(
        self,
        network: nn.Layer,
        optimizer: paddle.optimizer.Optimizer,
        dealer: Dealer,
        batches: int,
        batch_size: int,
    ) -> None:
        self._optimizer, self._dealer = optimizer, dealer
        self._statistics = RunningStatistics(network, dealer, batches)
        self._full = batches * batch_size
        self._done = False
        self._minimize = optimizer.minimize
        optimizer.minimize = self._minimize_mean

    def of(self, loss: Loss) -> Loss:
        """A loss for `paddle.Model`, from one that is a mean over the images of a batch."""

        def weighted(logits: Tensor, labels: Tensor) -> Tensor:
            value = loss(logits, labels)
            if logits.stop_gradient:  # an evaluation
                return value
            share = self._full / logits.shape[0]
            return value / share if self._dealer.counts else value * 0.0

        return weighted

    def before(self, scaler: paddle.amp.GradScaler) -> paddle.amp.GradScaler:
        """Add up before a scaler looks for overflow, so that one in a process skips it in all."""
        minimize = scaler.minimize

        def minimize_sum(*arguments: Any, **options: Any) -> Any:
            self._reduce()
            try:
                return minimize(*arguments, **options)
            finally:  # the optimizer is not asked where there was an overflow
                self._done = False

        scaler.minimize = minimize_sum
        return scaler

    def _reduce(self) -> None:
        add_up_gradients(self._optimizer)
        self._statistics.follow()
        self._done = True

    def _minimize_mean(self, *arguments: Any, **options: Any) -> Any:
        if not self._done:
            self._reduce()
        self._done = False
        turn = self._dealer.turn
        assert turn is not None
        if turn.images != self._full:
            scale_gradients(self._optimizer, self._full / turn.images)
        return self._minimize(*arguments, **options)


def add_up_gradients(optimizer: paddle.optimizer.Optimizer) -> None:
    """Add each parameter's gradient up over the processes; one that has none adds nothing."""
    parameters = [p for p in optimizer._parameter_list if not p.stop_gradient]
    found = parallel.total([float(p.grad is not None) for p in parameters])
    small: list[Tensor] = []
    with paddle.no_grad():
        for parameter in (p for p, count in zip(parameters, found, strict=True) if count):
            if parameter.grad is None:
                parameter.grad = paddle.zeros_like(parameter)
            if parameter.grad.size < SMALL:
                small.append(parameter.grad)
            else:
                parallel.add_up(parameter.grad)
        if small:
            joined = paddle.concat([gradient.flatten() for gradient in small])
            parallel.add_up(joined)
            pieces = joined.split([gradient.size for gradient in small])
            for gradient, piece in zip(small, pieces, strict=True):
                paddle.assign(piece.reshape(gradient.shape), gradient)


class RunningStatistics:
    """Running means and variances of a network's batch norms, over the batches of a step.

    A batch norm computes ``running * momentum + (1 - momentum) * batch``. While a batch is trained
    the running statistics are zero, so that the second term alone is left in them.
    """

    def __init__(self, network: nn.Layer, dealer: Dealer, batches: int) -> None:
        self._dealer = dealer
        norms = [
            layer
            for layer in network.sublayers(include_self=True)
            if isinstance(layer, nn.layer.norm._BatchNormBase) and not layer._use_global_stats
        ]
        self._buffers = [tensor for norm in norms for tensor in (norm._mean, norm._variance)]
        if not self._buffers:
            return
        self._sizes = [buffer.size for buffer in self._buffers]
        self._momentum = paddle.concat(
            [paddle.full([2 * norm._mean.size], norm._momentum, "float32") for norm in norms]
        )
        self._running: Tensor | None = None
        self._added = paddle.zeros([batches, sum(self._sizes)], "float32")
        self._network = network
        replace_forward(network, self._noted)

    def _noted(self, forward: Callable[[Tensor], Any], images: Tensor) -> Any:
        """Compute ``forward``, and note what it adds to the running statistics."""
        turn = self._dealer.turn
        if turn is None or not self._network.training:
            return forward(images)
        with paddle.no_grad():
            if self._running is None:
                self._running = self._joined()
                self._added.zero_()
            for buffer in self._buffers:
                buffer.zero_()
        outputs = forward(images)
        if turn.counts:
            with paddle.no_grad():
                self._added[turn.batch - turn.begin] = self._joined()
        return outputs

    def follow(self) -> None:
        """Bring the running statistics to where the group's batches lead, on every process."""
        turn = self._dealer.turn
        if not self._buffers or turn is None or self._running is None:
            return
        with paddle.no_grad():
            parallel.add_up(self._added)  # each row is one process's, and zero elsewhere
            running = self._running
            for row in range(turn.end - turn.begin):
                running = running * self._momentum + self._added[row]
            for buffer, piece in zip(self._buffers, running.split(self._sizes), strict=True):
                paddle.assign(piece, buffer)
        self._running = None

    def _joined(self) -> Tensor:
        return paddle.concat([buffer.detach() for buffer in self._buffers])
