"""From a config to a trained network, and a folder that tells all about the run."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import Tensor, nn
from rich.console import Console

from resnet_fit.callbacks import Checkpoint, History, ProgressBar, VisualDL
from resnet_fit.callbacks.history import best_row
from resnet_fit.callbacks.progress import clock_time, show
from resnet_fit.config import Config, dump_config
from resnet_fit.config.schema import OneCycle
from resnet_fit.engines import choose_engine
from resnet_fit.errors import UserError
from resnet_fit.files import write_json, write_text
from resnet_fit.networks import check_image_size, count_macs, count_parameters, resnet
from resnet_fit.runtime import choose_device, describe
from resnet_fit.training import schedules
from resnet_fit.training.loaders import Loaders, make_loaders
from resnet_fit.training.losses import CrossEntropy
from resnet_fit.training.metrics import classification_metrics
from resnet_fit.training.mixed_precision import check_amp, use_amp
from resnet_fit.training.optimizers import make_optimizer


@dataclass(frozen=True)
class Run:
    """A finished training: the model, its folder, and the content of ``summary.json``."""

    model: paddle.Model
    folder: Path
    summary: dict[str, Any]


def fit(config: Config, output: str | Path = "runs", name: str | None = None) -> Run:
    """Train, evaluate and log one experiment.

    Args:
        config: from `load_config` or `parse_config`.
        output: the folder that runs go to.
        name: the run's own folder in it; the time of the start by default.

    Raises:
        UserError: before anything is written, for what can be known at once.
        RunFailed: when the run cannot go on.
    """
    console = Console(highlight=False, soft_wrap=True)
    folder = run_folder(output, name or time.strftime("%Y%m%d-%H%M%S"))
    device = choose_device(config.training.device)
    engine = choose_engine(config.training.engine, device)
    check_amp(config.training.amp, device, engine)
    seed_everything(config.training.seed)
    loaders = make_loaders(config)
    network = make_network(config, loaders)
    facts = {
        "parameters": count_parameters(network),
        "macs": count_macs(network, loaders.image_shape[1], loaders.image_shape[0]),
        "classes": len(loaders.classes),
        "train_images": loaders.train.count,
        "eval_images": loaders.evaluation.count,
    }
    model = prepare(config, network, loaders, engine)
    history = History(folder / "metrics.jsonl")
    callbacks = make_callbacks(config, folder, history, console)

    folder.mkdir(parents=True)
    write_text(folder / "config.yaml", dump_config(config))
    environment = describe(device, engine)
    write_json(folder / "environment.json", environment)
    console.print(
        f"{folder}: {facts['parameters']:,} parameters, {facts['train_images']:,} images to train "
        f"on, {facts['eval_images']:,} to evaluate on; {device}, {engine} engine"
    )
    model.fit(
        loaders.train,
        loaders.evaluation,
        epochs=config.training.epochs,
        accumulate_grad_batches=config.training.accumulate,
        verbose=0,
        callbacks=callbacks,
    )
    test = None
    if loaders.test is not None:
        test = plain_numbers(model.evaluate(loaders.test, verbose=0))
        console.print(f"test {show(test)}")
    summary = summarize(config, history, facts, environment, test)
    write_json(folder / "summary.json", summary)
    console.print(f"{clock_time(summary['seconds'])}, all in {folder}")
    return Run(model, folder, summary)


def run_folder(output: str | Path, name: str) -> Path:
    """Where a run goes; refused if something is there already."""
    folder = Path(output) / name
    if not re.fullmatch(r"[\w.+=@-]+", name) or name in (".", ".."):
        raise UserError(
            f"--name: received '{name}', expected letters, digits and any of . + = @ - _"
        )
    if folder.exists():
        raise UserError(
            f"{folder}: exists already, and a run is never overwritten; use another name"
        )
    if Path(output).exists() and not Path(output).is_dir():
        raise UserError(f"--output: {output} is a file, expected a folder")
    return folder


def seed_everything(seed: int) -> None:
    """Seed every generator that building and training a network may draw from."""
    random.seed(seed)
    np.random.seed(seed)
    paddle.seed(seed)


def make_network(config: Config, loaders: Loaders) -> nn.Layer:
    """The network of a config, for the images and classes of its data."""
    options = config.model.model_dump(exclude={"name"})
    channels, height, width = loaders.image_shape
    check_image_size(config.model.stem, min(height, width))
    return resnet(num_classes=len(loaders.classes), in_channels=channels, **options)


def prepare(
    config: Config, network: nn.Layer, loaders: Loaders, engine: str = "framework"
) -> paddle.Model:
    """A `paddle.Model` with the optimizer, schedule, loss and metrics of a config."""
    rate, steps = full_rate(config), len(loaders.train)
    schedule = schedules.per_step(make_schedule(config), rate, steps)
    optimizer = make_optimizer(network, config.optimizer, schedule, config.training.clip_norm)
    loss = CrossEntropy(config.training.label_smoothing)
    metrics = classification_metrics(loss, len(loaders.classes))
    amp_configs = use_amp(config.training.amp, network, engine)
    model = paddle.Model(network)
    model.prepare(optimizer, averaged(loss, config.training.accumulate), metrics, amp_configs)
    return model


def averaged(loss: CrossEntropy, batches: int) -> Callable[[Tensor, Tensor], Tensor]:
    """A loss for gradients accumulated over ``batches``, which Paddle adds up as they come."""
    if batches == 1:
        return loss
    return lambda logits, labels: loss(logits, labels) / batches


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


def make_callbacks(
    config: Config, folder: Path, history: History, console: Console
) -> list[paddle.callbacks.Callback]:
    """What watches a run. The schedule steps first, so that a checkpoint holds the next rate."""
    checkpoint = config.checkpoint
    callbacks = [
        paddle.callbacks.LRScheduler(),
        history,
        Checkpoint(folder / "checkpoints", checkpoint.monitor, checkpoint.mode),
        ProgressBar(console=console),
    ]
    if config.logging.visualdl:
        text = dump_config(config)
        curves = VisualDL(
            folder / "visualdl", config.logging.every_steps, text, hyperparameters(config)
        )
        callbacks.insert(2, curves)
    return callbacks


def hyperparameters(config: Config) -> dict[str, Any]:
    """The settings to compare runs by, as one level of ``section.key``."""
    chosen = config.model_dump(include={"model", "data", "optimizer", "schedule", "training"})
    return {
        f"{section}.{key}": value
        for section, values in chosen.items()
        for key, value in values.items()
        if isinstance(value, (int, float, str))
    }


def summarize(
    config: Config,
    history: History,
    facts: dict[str, Any],
    environment: dict[str, Any],
    test: dict[str, float] | None,
) -> dict[str, Any]:
    """The content of ``summary.json``: metrics best and last, cost, and what ran on what."""
    rows = history.rows
    images = facts["train_images"] * len(rows)
    trained = sum(row["train_seconds"] for row in rows)
    return {
        "last": rows[-1],
        "best": best_row(rows, config.checkpoint.monitor, config.checkpoint.mode),
        "judged_on": "validation" if test is not None or config.data.name == "folder" else "test",
        "test": test,
        "epochs": len(rows),
        "seconds": rows[-1]["seconds"],
        "images_per_second": round(images / trained, 1),
        **facts,
        "environment": environment,
        "config": config.model_dump(),
    }


def plain_numbers(metrics: dict[str, Any]) -> dict[str, float]:
    return {name: float(np.ravel(value)[0]) for name, value in metrics.items()}
