"""Muon: orthogonalised momentum for convolutions, momentum for the rest.

Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; that weights keep
their norm is from the same author's airbench (2024).
"""

from __future__ import annotations

from typing import Any

import paddle
from paddle import Tensor

# Five steps of a polynomial that draws every singular value towards 1, with the weights published
# for it: fast rather than exact, values end between 0.7 and 1.2.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
STEPS = 5

EPSILON = 1e-12  # keeps a divisor from zero


class OrthogonalMomentum(paddle.optimizer.Momentum):
    """`paddle.optimizer.Momentum` whose convolutions step by an orthogonalised velocity.

    A step is ``learning_rate`` times the norm of the weights, which keep the norm they have: the
    rate is the angle (in radians) by which a step turns them. Where a batch norm follows, as in the
    networks of this library, the norm of the weights has no effect, nor would weight decay have.
    A convolution without one keeps the scale that it started with.
    All else (norms, biases, the last layer) is trained by momentum at that parameter's rate factor.

    Arguments are those of `paddle.optimizer.Momentum`.
    """

    def _append_optimize_op(self, block: Any, param_and_grad: Any) -> Any:
        weight, gradient = param_and_grad
        if not is_convolution(weight):
            return super()._append_optimize_op(block, param_and_grad)
        velocity = self._get_accumulator_master(self._velocity_acc_str, weight)
        velocity.scale_(self._momentum).add_(gradient)
        direction = self._momentum * velocity + gradient if self._use_nesterov else velocity
        step = orthogonal(direction.reshape([direction.shape[0], -1])).reshape(weight.shape)
        norm = _norm(weight)
        length = self._create_param_lr(param_and_grad) * norm
        moved = weight - (length / (_norm(step) + EPSILON)) * step
        paddle.assign((norm / (_norm(moved) + EPSILON)) * moved, weight)
        return None


def _norm(x: Tensor) -> Tensor:
    """The Euclidean norm: on a CPU, Paddle's own takes 80 times as long as this product."""
    flat = x.flatten()
    return (flat @ flat).sqrt()


def is_convolution(parameter: Tensor) -> bool:
    return len(parameter.shape) == 4


def orthogonal(matrix: Tensor) -> Tensor:
    """The matrix ``[rows, columns]`` with its singular values brought near 1; zeros stay zeros.

    The polynomial is applied to the small square of products of rows instead of the whole matrix,
    since its powers commute: less than half of the arithmetic for wide convolutions.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonal(matrix.t()).t()
    a, b, c = NEWTON_SCHULZ
    square = paddle.matmul(matrix, matrix, transpose_y=True)
    norm = square.trace().sqrt() + EPSILON
    square = square / norm / norm
    identity = paddle.eye(square.shape[0], dtype=square.dtype)
    product = None
    for step in range(STEPS):
        factor = a * identity + b * square + c * (square @ square)
        product = factor if product is None else factor @ product
        if step < STEPS - 1:
            square = factor @ square @ factor
    return (product / norm) @ matrix
