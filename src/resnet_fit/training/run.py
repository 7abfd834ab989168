"""A run: an experiment fitted, in a folder that tells all about it."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from rich.console import Console

from resnet_fit.callbacks import Checkpoint, Clock, History, Interruption, ProgressBar, VisualDL
from resnet_fit.callbacks.nan_guard import NaNGuard
from resnet_fit.callbacks.progress import clock_time, show
from resnet_fit.config import Config, dump_config, load_run_config
from resnet_fit.errors import UserError
from resnet_fit.files import lock, write_json, write_text
from resnet_fit.runtime import describe
from resnet_fit.training.checkpoints import load_checkpoint
from resnet_fit.training.experiment import Experiment, set_up
from resnet_fit.training.summary import summarize


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
        UserError: for a mistake in config or data; without a checkpoint, no folder is left.
        RunFailed: when the run cannot go on.
    """
    folder = _new_folder(Path(output), name or time.strftime("%Y%m%d-%H%M%S"))
    experiment = set_up(config)
    watch = _Watch(experiment, folder)
    _make(folder)
    try:
        with lock(folder):
            write_text(folder / "config.yaml", dump_config(config))
            return _train(experiment, watch)
    except UserError:
        if not (folder / "checkpoints").exists():
            shutil.rmtree(folder)  # nothing to go on from, and its name is free again
        raise


def resume(folder: str | Path, overrides: Sequence[str] = ()) -> Run:
    """Go on with a run from its last checkpoint, as if it had never stopped.

    Args:
        folder: the run's folder; its config travels with it.
        overrides: assignments; ``training.epochs`` may extend a run.

    Raises:
        UserError: not a run, nothing to go on from, or an override that would change the run.
    """
    folder = Path(folder)
    config = load_run_config(folder, overrides)
    with lock(folder):
        experiment = set_up(config)
        watch = _Watch(experiment, folder)
        state, found = load_checkpoint(folder / "checkpoints" / "last", experiment.model)
        watch.restore(state)
        watch.checkpoint.complete(found)
        watch.console.print(f"goes on from {found} after step {watch.clock.step}")
        write_text(folder / "config.yaml", dump_config(config))
        return _train(experiment, watch)


class _Watch:
    """The callbacks of a run, in the order they need: each uses what the one before has done."""

    def __init__(self, experiment: Experiment, folder: Path) -> None:
        config = experiment.config
        self.folder = folder
        self.console = Console(highlight=False, soft_wrap=True)
        self.clock = clock = Clock()
        self.history = History(folder / "metrics.jsonl", clock)
        parts: dict[str, Any] = {"history": self.history}
        if config.logging.visualdl:
            parts["visualdl"] = VisualDL(
                folder / "visualdl",
                config.logging.every_steps,
                dump_config(config),
                hyperparameters(config),
                clock,
            )
        self.parts = parts
        self.checkpoint = Checkpoint(
            folder / "checkpoints",
            config.checkpoint.monitor,
            config.checkpoint.mode,
            config.checkpoint.every_minutes,
            parts,
            clock,
        )
        self.progress = ProgressBar(config.training.epochs, clock, self.console)
        self.interruption = Interruption(self.checkpoint)
        self.callbacks: list[paddle.callbacks.Callback] = [
            NaNGuard(clock),
            paddle.callbacks.LRScheduler(),  # before a checkpoint, which holds the next rate
            *parts.values(),
            self.progress,
            self.checkpoint,
            self.interruption,
        ]

    def restore(self, state: dict[str, Any]) -> None:
        """Put everything where a checkpoint says the run stands."""
        self.clock.set_state_dict(state["clock"])
        self.checkpoint.set_state_dict(state["checkpoint"])
        for name, part in self.parts.items():
            part.set_state_dict(state[name])

    @property
    def epochs_done(self) -> int:
        return self.clock.epoch - self.clock.within_epoch

    def close(self) -> None:
        self.progress.close()
        self.interruption.close()
        if "visualdl" in self.parts:
            self.parts["visualdl"].close()


def _train(experiment: Experiment, watch: _Watch) -> Run:
    folder, console, model = watch.folder, watch.console, experiment.model
    config, loaders, facts = experiment.config, experiment.loaders, experiment.facts
    environment = describe(experiment.device, experiment.engine)
    write_json(folder / "environment.json", environment)
    console.print(
        f"{folder}: {facts['parameters']:,} parameters, {facts['train_images']:,} images to train "
        f"on, {facts['eval_images']:,} to evaluate on; {experiment.device}, "
        f"{experiment.engine} engine"
    )
    epochs_left = config.training.epochs - watch.epochs_done
    if epochs_left > 0:
        within = watch.clock.epoch_step if watch.clock.within_epoch else 0
        loaders.train.set_position(watch.epochs_done, within)
        try:
            model.fit(
                loaders.train,
                loaders.evaluation,
                epochs=epochs_left,
                accumulate_grad_batches=config.training.accumulate,
                verbose=0,
                callbacks=watch.callbacks,
            )
        finally:
            watch.close()
    test = None
    if loaders.test is not None:
        test = plain_numbers(model.evaluate(loaders.test, verbose=0))
        console.print(f"test {show(test)}")
    summary = summarize(experiment, watch.history.rows, environment, test)
    write_json(folder / "summary.json", summary)
    console.print(f"{clock_time(summary['seconds'])}, all in {folder}")
    return Run(model, folder, summary)


def _new_folder(output: Path, name: str) -> Path:
    """Where a run goes; refused if something is there already."""
    if not re.fullmatch(r"[\w.+=@-]+", name) or name in (".", ".."):
        raise UserError(
            f"--name: received '{name}', expected letters, digits and any of . + = @ - _"
        )
    folder = output / name
    if folder.exists():
        raise UserError(
            f"{folder}: exists already, and a run is never overwritten; use another name"
        )
    return folder


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror}); see --output") from None


def hyperparameters(config: Config) -> dict[str, Any]:
    """The settings to compare runs by, as one level of ``section.key``."""
    chosen = config.model_dump(include={"model", "data", "optimizer", "schedule", "training"})
    return {
        f"{section}.{key}": value
        for section, values in chosen.items()
        for key, value in values.items()
        if isinstance(value, (int, float, str))
    }


def plain_numbers(metrics: dict[str, Any]) -> dict[str, float]:
    """What `paddle.Model.evaluate` returns, as numbers."""
    return {name: float(np.ravel(value)[0]) for name, value in metrics.items()}
