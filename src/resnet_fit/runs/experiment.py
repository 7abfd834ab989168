"""From a config to a `paddle.Model` that is ready to be fitted."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
from paddle import nn

from resnet_fit import parallel
from resnet_fit.backends import check_cinn, choose_backend, compile_forward
from resnet_fit.data.datasets.data import Parts
from resnet_fit.data.dealing import Dealer
from resnet_fit.data.make_loaders import Loaders, make_loaders
from resnet_fit.data.record import DataRecord
from resnet_fit.errors import UserError, out_of_memory
from resnet_fit.networks import count_macs, count_parameters, freeze, load_weights, whiten
from resnet_fit.networks.layer_names import BACKBONE, check_layers, head_of
from resnet_fit.networks.pretrained import weights_file
from resnet_fit.runs.automatic import Execution, execution, resolve_auto
from resnet_fit.runs.config import Config
from resnet_fit.runtime import choose_device
from resnet_fit.training.accumulation import accumulated
from resnet_fit.training.metrics import OverProcesses, classification_metrics
from resnet_fit.training.precision import LossScaler, check_precision, use_precision
from resnet_fit.training.reduction import Reduction


@dataclass(frozen=True)
class Experiment:
    """What is built from a config: its data, its model, and the device that computes.

    Attributes:
        config: as the user wrote it, with its ``auto``.
        execution: how it computes: what became of ``auto``.
        counts: numbers of the network and the data for the run's summary.
        weights: the file that its network started from; None for a random start.
    """

    config: Config
    device: str
    execution: Execution
    loaders: Loaders
    model: paddle.Model
    counts: dict[str, Any]
    weights: str | None = None


def set_up(
    config: Config,
    network: nn.Layer | None = None,
    parts: Parts | None = None,
    recorded: DataRecord | None = None,
    was: Mapping[str, Any] | None = None,
) -> Experiment:
    """Check a config against device and data, and build all of it. Writes nothing.

    Args:
        network: for ``model: {name: given}``.
        parts: the data, for ``data: {name: given}``.
        recorded: of a run that goes on, what it was trained on: the data must be the same, and
            ``model.weights`` are not asked for.
        was: of a run that goes on, what it took for ``auto``: see `automatic.recorded`.

    Raises:
        UserError: for what does not fit together.
    """
    device = choose_device(config.training.device)
    resolved = resolve_auto(config, device, was)
    if resolved.training.compile == "cinn":
        check_cinn(device)
    if resolved.augmentation.on_device and device == "cpu":
        warnings.warn(
            "augmentation.on_device: for a GPU; on a CPU it changes nothing but makes batches more "
            "slowly",
            stacklevel=2,
        )
    parallel.start(device)
    seed_everything(config.training.seed)
    loaders = open_data(resolved, recorded, parts)
    if network is None:
        network = make_network(config, len(loaders.classes), loaders.image_shape[0])
    training, compiled = resolved.training, resolved.training.compile != "off"
    backend = choose_backend(training.backend, device, compiled, network, training.precision)
    check_precision(training.precision, device, backend)
    channels, height, width = loaders.image_shape
    weights = start_from(
        network, config, len(loaders.classes), channels, with_weights=recorded is None
    )
    whitened = config.model.whitened()
    if recorded is None and whitened is not None:
        layer = dict(network.named_sublayers())[whitened]
        parallel.first(lambda: whiten(layer, loaders.sample()))
    parallel.share(list(network.state_dict().values()))
    counts = {
        "parameters": count_parameters(network),
        "macs": count_macs(network, (height, width), channels),
        "classes": len(loaders.classes),
        "train_images": loaders.train.count,
        "eval_images": loaders.evaluation.count,
    }
    model = prepare(resolved, network, loaders, backend)
    return Experiment(config, device, execution(resolved, backend), loaders, model, counts, weights)


def open_data(
    config: Config, recorded: DataRecord | None = None, parts: Parts | None = None
) -> Loaders:
    """Loaders of a config's data. Of several processes the first one goes ahead.

    The others then find downloads and caches there, and take its mean and deviation.
    """
    dealer = Dealer(parallel.rank(), parallel.size())
    opened: list[Loaders] = []

    def first() -> str:
        opened.append(make_loaders(config, recorded, parts, dealer))
        return opened[0].record.to_json()

    record = parallel.first(first)
    return (
        opened[0] if opened else make_loaders(config, DataRecord.from_json(record), parts, dealer)
    )


def seed_everything(seed: int) -> None:
    """Seed every generator that building and training a network may draw from."""
    random.seed(seed)
    np.random.seed(seed)
    paddle.seed(seed)


@contextmanager
def generators_untouched() -> Iterator[None]:
    """What seeds and draws meanwhile leaves Python's, numpy's and Paddle's generators as before."""
    before = random.getstate(), np.random.get_state(), paddle.get_rng_state()
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        paddle.set_rng_state(before[2])


def make_network(config: Config, classes: int, channels: int) -> nn.Layer:
    """The network of a config, for so many classes and channels of images.

    Raises:
        UserError: it does not fit into memory.
    """
    try:
        return config.model.build(classes, channels)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise UserError("model: a network of these settings does not fit into memory") from error


def start_from(
    network: nn.Layer, config: Config, classes: int, channels: int, with_weights: bool = True
) -> str | None:
    """Load the first weights of a network, and freeze the layers that are not trained.

    Of several processes the first one alone loads them.

    Returns:
        the file that the weights are from, if any.

    Raises:
        UserError: the weights do not fit, what is to be frozen is not there or all of it, or the
            layer that gives the logits has to be told from the others and cannot be.
    """
    needs_head = BACKBONE in (*config.model.freeze, *config.optimizer.lr_factors)
    file = None
    if with_weights and config.model.weights is not None:
        asked = (config.model, config.model.weights, channels)

        def load() -> tuple[str, bool]:
            report = load_weights(network, weights_file(*asked))
            return report.file, report.other_classes is not None

        file, has_other_classes = parallel.first(load)
        needs_head |= has_other_classes
    if needs_head:
        head_of(network, classes)
    check_layers(network, config.model.freeze, "model.freeze")
    whitened = config.model.whitened()
    freeze(network, config.model.freeze if whitened is None else [*config.model.freeze, whitened])
    if not count_parameters(network):
        raise UserError("model.freeze: nothing is left to train")
    return file


def prepare(
    config: Config, network: nn.Layer, loaders: Loaders, backend: str = "paddle"
) -> paddle.Model:
    """A `paddle.Model` with the optimizer, schedule, loss and metrics of a config."""
    training = config.training
    full_rate = config.optimizer.full_rate(config.data.batch_size * training.accumulate)
    rate = config.schedule.rate(full_rate, training.epochs, loaders.train.batches)
    optimizer = config.optimizer.build(network, rate)
    loss = config.loss.build(loaders.train.labels, len(loaders.classes))
    metrics = classification_metrics(loss, len(loaders.classes))
    if training.compile in ("static", "cinn"):
        fuse = backend == "channels_last" and training.precision == "float16"
        compile_forward(network, "CINN" if training.compile == "cinn" else None, fuse_norms=fuse)
    amp_configs = use_precision(training.precision, network, backend)
    model = paddle.Model(network)
    batches, batch_size = training.accumulate, config.data.batch_size
    processes = parallel.size()
    if processes == 1:
        stepped = accumulated(loss, optimizer, batches, batch_size)
    else:
        dealer = loaders.dealer
        reduction = Reduction(network, optimizer, dealer, batches, batch_size)
        stepped = reduction.of(loss)
        metrics = [OverProcesses(metric, dealer) for metric in metrics]
    model.prepare(optimizer, stepped, metrics, amp_configs)
    if amp_configs is not None:
        scaler = LossScaler()
        model._scaler = scaler if processes == 1 else reduction.before(scaler)
    return model
