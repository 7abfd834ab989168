"""From a config to a `paddle.Model` that is ready to be fitted."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
from paddle import nn

from resnet_fit.runs.config import Config
from resnet_fit.data.record import DataRecord
from resnet_fit.backends import check_cinn, choose_backend, compile_forward
from resnet_fit.errors import UserError, out_of_memory
from resnet_fit.networks import count_macs, count_parameters, densenet, freeze, resnet
from resnet_fit.networks.layer_names import check_parts
from resnet_fit.runtime import choose_device
from resnet_fit.training import schedules
from resnet_fit.training.accumulation import accumulated
from resnet_fit.data.make_loaders import Loaders, make_loaders
from resnet_fit.training.objectives import BinaryCrossEntropy, CrossEntropy, balanced_weights
from resnet_fit.training.metrics import classification_metrics
from resnet_fit.training.precision import check_amp, use_amp
from resnet_fit.training.optimizers import make_optimizer

BUILDERS: dict[str, Callable[..., nn.Layer]] = {"resnet": resnet, "densenet": densenet}


@dataclass(frozen=True)
class Experiment:
    """A config brought to life: its data, its model, and where that computes.

    ``facts`` are numbers of the network and the data for the run's summary.
    """

    config: Config
    device: str
    engine: str
    loaders: Loaders
    model: paddle.Model
    facts: dict[str, Any]


def set_up(config: Config, recorded: DataRecord | None = None) -> Experiment:
    """Check a config against device and data, and build all of it. Writes nothing.

    Args:
        config: the experiment.
        recorded: of a run that goes on, what it was trained on: the data must be the same, and
            ``model.weights`` are not asked for.

    Raises:
        UserError: for what does not fit together.
    """
    device = choose_device(config.training.device)
    engine = choose_backend(config.training.backend, device, config.training.compile != "off")
    check_amp(config.training.amp, device, engine)
    if config.training.compile == "cinn":
        check_cinn(device)
    if config.augmentation.on_device and device == "cpu":
        warnings.warn(
            "augmentation.on_device: for a GPU; on a CPU it changes nothing but makes batches more "
            "slowly",
            stacklevel=2,
        )
    if config.training.adapt_threads and device != "cpu":
        warnings.warn(
            "training.adapt_threads: for a CPU; on a GPU it changes nothing", stacklevel=2
        )
    seed_everything(config.training.seed)
    loaders = make_loaders(config, recorded)
    network = make_network(config, loaders, with_weights=recorded is None)
    channels, height, _ = loaders.image_shape
    facts = {
        "parameters": count_parameters(network),
        "macs": count_macs(network, height, channels),
        "classes": len(loaders.classes),
        "train_images": loaders.train.count,
        "eval_images": loaders.evaluation.count,
    }
    model = prepare(config, network, loaders, engine)
    return Experiment(config, device, engine, loaders, model, facts)


def seed_everything(seed: int) -> None:
    """Seed every generator that building and training a network may draw from."""
    random.seed(seed)
    np.random.seed(seed)
    paddle.seed(seed)


def make_network(config: Config, loaders: Loaders, with_weights: bool = True) -> nn.Layer:
    """The network of a config, for the images and classes of its data.

    Without ``with_weights`` it keeps its random start, also where the config has
    ``model.weights``.

    Raises:
        UserError: it does not fit into memory, or what is to be frozen is not there or all of it.
    """
    build = BUILDERS[config.model.name]
    options = config.model.model_dump(exclude={"name"} if with_weights else {"name", "weights"})
    channels, _, _ = loaders.image_shape
    try:
        network = build(num_classes=len(loaders.classes), in_channels=channels, **options)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise UserError("model: a network of these settings does not fit into memory") from error
    check_parts(network, config.training.freeze, "training.freeze")
    freeze(network, config.training.freeze)
    if not count_parameters(network):
        raise UserError("training.freeze: nothing is left to train")
    return network


def make_loss(config: Config, loaders: Loaders) -> CrossEntropy | BinaryCrossEntropy:
    """The loss of a config, with the weights its classes need.

    Raises:
        UserError: another number of class weights than the data have classes.
    """
    training, classes = config.training, len(loaders.classes)
    weights = training.class_weights
    if weights == "balanced":
        weights = balanced_weights(loaders.train.labels, classes)
    elif weights is not None and len(weights) != classes:
        raise UserError(
            f"training.class_weights: received {len(weights)}, and the data have {classes} classes"
        )
    if training.loss == "binary_cross_entropy":
        return BinaryCrossEntropy(training.label_smoothing, weights, training.target_threshold)
    return CrossEntropy(training.label_smoothing, weights)


def prepare(
    config: Config, network: nn.Layer, loaders: Loaders, engine: str = "framework"
) -> paddle.Model:
    """A `paddle.Model` with the optimizer, schedule, loss and metrics of a config."""
    rate, steps = full_rate(config), len(loaders.train)
    schedule = schedules.per_step(make_schedule(config), rate, steps)
    optimizer = make_optimizer(network, config.optimizer, schedule, config.training.clip_norm)
    loss = make_loss(config, loaders)
    metrics = classification_metrics(loss, len(loaders.classes))
    if config.training.compile != "off":
        amp = config.training.amp
        compile_forward(
            network,
            backend="CINN" if config.training.compile == "cinn" else None,
            fuse_norms=engine == "channels_last" and amp.level != "off" and amp.dtype == "float16",
        )
    amp_configs = use_amp(config.training.amp, network, engine)
    model = paddle.Model(network)
    batches = config.training.accumulate
    model.prepare(
        optimizer,
        accumulated(loss, optimizer, batches, config.data.batch_size),
        metrics,
        amp_configs,
    )
    return model


def full_rate(config: Config) -> float:
    """The learning rate for the batch size in use (Goyal et al. 2017: proportional to it)."""
    optimizer = config.optimizer
    if optimizer.reference_batch_size is None:
        return optimizer.learning_rate
    batch = config.data.batch_size * config.training.accumulate
    return optimizer.learning_rate * batch / optimizer.reference_batch_size


def make_schedule(config: Config) -> schedules.Schedule:
    """The schedule of a config, over its epochs."""
    options = config.schedule.model_dump(exclude={"name", "warmup_epochs", "warmup_start"})
    if config.schedule.name in ("cosine", "one_cycle"):
        options["epochs"] = config.training.epochs
    then = getattr(schedules, config.schedule.name)(**options)
    return schedules.warm_up(config.schedule.warmup_epochs, config.schedule.warmup_start, then)
