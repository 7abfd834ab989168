"""Optimizers with weight decay where it belongs."""

from __future__ import annotations

from typing import Any

import paddle
from paddle import nn

from resnet_fit.config import schema
from resnet_fit.errors import RunFailed
from resnet_fit.networks.layer_names import BACKBONE, check_parts, head_of, part_of
from resnet_fit.training.orthogonal import Muon, is_convolution


def make_optimizer(
    network: nn.Layer,
    config: schema.SGD | schema.Momentum | schema.Adam | schema.Lamb | schema.Muon,
    learning_rate: float | paddle.optimizer.lr.LRScheduler,
    clip_norm: float | None = None,
) -> paddle.optimizer.Optimizer:
    """The optimizer a config describes, over all trainable parameters of a network.

    Weight decay leaves norms and biases alone unless ``decay_norms_and_biases`` is set. Gradients
    are clipped by their global norm. Of several ``rate_factors`` the longest name counts.

    Raises:
        UserError: a rate factor for what is no layer of the network.
    """
    other = config.other_rate / config.learning_rate if isinstance(config, schema.Muon) else 1.0
    _set_rate_factors(network, config.rate_factors, other)
    trained = [p for p in network.parameters() if not p.stop_gradient]
    decayed = [p for p in trained if config.decay_norms_and_biases or len(p.shape) > 1]
    common: dict[str, Any] = {
        "learning_rate": learning_rate,
        "parameters": trained,
        "grad_clip": paddle.nn.ClipGradByGlobalNorm(clip_norm) if clip_norm else None,
    }
    names = {p.name for p in decayed}
    if isinstance(config, schema.Adam | schema.Lamb):
        common |= {"beta1": config.beta1, "beta2": config.beta2, "epsilon": config.epsilon}
        if config.name == "adamw":
            return paddle.optimizer.AdamW(
                weight_decay=config.weight_decay,
                apply_decay_param_fun=names.__contains__,
                **common,
            )
    if isinstance(config, schema.Lamb):
        return paddle.optimizer.Lamb(
            lamb_weight_decay=config.weight_decay,
            exclude_from_weight_decay_fn=lambda parameter: parameter.name not in names,
            **common,
        )
    # A decay that belongs to a parameter is fused into the momentum kernel; one that belongs to
    # the optimizer would reach norms and biases as well.
    for parameter in decayed:
        parameter.regularizer = (
            paddle.regularizer.L2Decay(config.weight_decay) if config.weight_decay else None
        )
    if isinstance(config, schema.Adam):
        return _checked(paddle.optimizer.Adam(use_multi_tensor=config.fused, **common))
    if isinstance(config, schema.Muon):
        return Muon(momentum=config.momentum, use_nesterov=config.nesterov, **common)
    if isinstance(config, schema.Momentum):
        common |= {"momentum": config.momentum, "use_nesterov": config.nesterov}
        return _checked(paddle.optimizer.Momentum(use_multi_tensor=config.fused, **common))
    return paddle.optimizer.SGD(**common)


def _checked(optimizer: paddle.optimizer.Optimizer) -> paddle.optimizer.Optimizer:
    """An optimizer that, where it is fused, refuses a step in which a parameter has no gradient.

    Paddle's fused operations pair parameters and gradients by their places, and would give each
    parameter after a missing gradient that of another.
    """
    update = optimizer._append_optimize_multi_tensor_op

    def checked(block: Any, pairs: list[Any], param_group_idx: int) -> Any:
        given = {parameter.name for parameter, _ in pairs}
        missing = [p.name for p in optimizer._parameter_list if p.name not in given]
        if missing:
            raise RunFailed(
                f"optimizer.fused: {missing[0]} has no gradient, and a fused step needs all; set "
                "optimizer.fused: false"
            )
        return update(block, pairs, param_group_idx)

    optimizer._append_optimize_multi_tensor_op = checked
    return optimizer


def _set_rate_factors(network: nn.Layer, factors: dict[str, float], other: float) -> None:
    """Give named parts their factor, and all that is no convolution ``other`` times its own."""
    check_parts(network, factors, "optimizer.rate_factors")
    head = head_of(network) if factors else ""
    for name, parameter in network.named_parameters():
        parts = [part for part in factors if part_of(name, part, head)]
        longest = max(parts, key=lambda part: (part != BACKBONE, len(part)), default=None)
        factor = factors[longest] if longest is not None else 1.0
        factor *= 1.0 if is_convolution(parameter) else other
        parameter.optimize_attr["learning_rate"] = factor  # Paddle's own place for it
