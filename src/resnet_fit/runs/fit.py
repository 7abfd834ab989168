"""A run: an experiment fitted, in a folder that tells all about it."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from resnet_fit.callbacks import (
    AdaptThreads,
    Checkpoint,
    Clock,
    EarlyStopping,
    FlipAverage,
    History,
    Interruption,
    NaNGuard,
    NaNSkip,
    ProgressBar,
    Relay,
    SlowData,
    StepSeed,
    VisualDL,
    WeightAverage,
)
from resnet_fit.callbacks.nan_guard import ADVICE, absurd
from resnet_fit.callbacks.progress import clock_time
from resnet_fit.callbacks.second_evaluation import SecondEvaluation
from resnet_fit.runs.config import Config, dump_config
from resnet_fit.data.loading import FileLoader, Loader
from resnet_fit.data.record import DataRecord
from resnet_fit.errors import Diverged, RunFailed, UserError, out_of_memory
from resnet_fit.files import lock, write_json, write_text
from resnet_fit.machine import usable_cores
from resnet_fit.networks.weights import find_weights
from resnet_fit.run_log import RunLog
from resnet_fit.runtime import describe
from resnet_fit.terminal import recording, say
from resnet_fit.checkpoints.files import CONFIG, DATA, find_checkpoint
from resnet_fit.checkpoints.folder import (
    describe_last,
    load_whole,
    needed_files,
    read_state,
)
from resnet_fit.runs.experiment import Experiment, set_up
from resnet_fit.runs.resuming import (
    checkpoint_config,
    follow_epochs,
    load_run_config,
    require_epochs,
)
from resnet_fit.runs.summary import summarize


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
    with recording() as log:
        experiment = set_up(config)
        watch = _Watch(experiment, folder)
        _make(folder)
        try:
            with lock(folder):
                log.open(folder / "run.log")
                require_space(folder, experiment)
                _write_documents(folder, experiment)
                if config.model.weights is not None:
                    say(f"starts from {find_weights(config.model.weights)}")
                return _train(experiment, watch)
        except UserError:
            if not (folder / "checkpoints").exists():
                log.close()
                shutil.rmtree(folder)  # nothing to go on from, and its name is free again
            raise


def resume(folder: str | Path, overrides: Sequence[str] = ()) -> Run:
    """Go on with a run from its last checkpoint, as if it had never stopped.

    Args:
        folder: the run's folder; its config travels with it.
        overrides: assignments; ``training.epochs`` may extend a run.

    Raises:
        UserError: not a run, nothing to go on from, or settings or data that are not the run's;
            then nothing is written.
    """
    folder = Path(folder)
    with recording() as log:
        config = load_run_config(folder, overrides)
        with lock(folder):
            return _go_on(folder, config, log)


def _go_on(folder: Path, config: Config, log: RunLog) -> Run:
    found = find_checkpoint(
        folder / "checkpoints" / "last",
        [*needed_files(config.training.ema is not None), CONFIG, DATA],
    )
    state = read_state(found)
    require_epochs(config, state)
    experiment = set_up(config, DataRecord.read(found / DATA))
    watch = _Watch(experiment, folder)
    load_whole(found, experiment.model, watch.average)
    log.open(folder / "run.log")
    watch.restore(state)
    follow_epochs(experiment, state, checkpoint_config(found))
    watch.checkpoint.complete(found)
    say(f"goes on from {found} after step {watch.clock.step}")
    _write_documents(folder, experiment)
    return _train(experiment, watch)


class _Watch:
    """The callbacks of a run, in the order they need: each uses what the one before has done."""

    def __init__(self, experiment: Experiment, folder: Path) -> None:
        config = experiment.config
        self.folder = folder
        self.clock = clock = Clock()
        self.history = History(folder / "metrics.jsonl", clock)
        parts: dict[str, Any] = {"loader": experiment.loaders.train}
        self.nan_skip = self.average = self.early_stopping = None
        if config.training.on_nan == "skip":
            self.nan_skip = parts["nan_skip"] = NaNSkip(clock=clock)
        if config.training.ema is not None:
            self.average = WeightAverage(
                experiment.loaders.evaluation, **config.training.ema.model_dump(), clock=clock
            )
            parts["average"] = self.average
        self.flips = None
        if config.training.flip_averaging:
            self.flips = FlipAverage(experiment.loaders.evaluation, clock)
        has_chance = getattr(config.model, "stochastic_depth", 0.0) > 0
        parts["history"] = self.history
        if config.logging.visualdl:
            parts["visualdl"] = VisualDL(
                folder / "visualdl",
                config.logging.every_steps,
                dump_config(config),
                hyperparameters(config),
                clock,
            )
        if config.training.early_stopping is not None:
            self.early_stopping = EarlyStopping(
                config.checkpoint.monitor,
                config.checkpoint.mode,
                **config.training.early_stopping.model_dump(),
                clock=clock,
            )
            parts["early_stopping"] = self.early_stopping
        self.parts = parts
        self.checkpoint = Checkpoint(
            folder / "checkpoints",
            config.checkpoint.monitor,
            config.checkpoint.mode,
            config.checkpoint.every_minutes,
            parts,
            clock,
            config.checkpoint.every_steps,
            config.checkpoint.keep,
            self.average,
            documents(experiment),
        )
        self.threads = AdaptThreads() if config.training.adapt_threads else None
        self.progress = self._progress(experiment)
        self.interruption = Interruption(self.checkpoint)
        for second in self.second_evaluations:
            second.watchers = self.watchers
        for callback in (*self.second_evaluations, *self.watchers):
            callback.set_model(experiment.model)  # for a test without any epoch before it
        self.callbacks: list[paddle.callbacks.Callback] = [
            *([self.threads] if self.threads is not None else []),
            *([self.nan_skip] if self.nan_skip is not None else []),
            paddle.callbacks.LRScheduler(),  # before a checkpoint, which holds the next rate
            *([StepSeed(config.training.seed, clock)] if has_chance else []),
            *self.second_evaluations,
            NaNGuard(clock),
            *(parts[name] for name in parts if name not in ("loader", "nan_skip", "average")),
            SlowData(faster_data(experiment.loaders.train), clock=clock),
            self.progress,
            self.checkpoint,
            self.interruption,
        ]

    def _progress(self, experiment: Experiment) -> ProgressBar:
        loaders = experiment.loaders
        views = 1 + sum(second.views for second in self.second_evaluations)
        return ProgressBar(
            experiment.config.training.epochs,
            self.clock,
            evaluated=views * loaders.evaluation.count,
            tested=views * loaders.test.count if loaders.test is not None else 0,
        )

    def restore(self, state: dict[str, Any]) -> None:
        """Put everything where a checkpoint says the run stands."""
        self.clock.set_state_dict(state["clock"])
        self.checkpoint.set_state_dict(state["checkpoint"])
        for name, part in self.parts.items():
            if name in state or name != "visualdl":  # curves may be wanted later
                part.set_state_dict(state[name])
        if "visualdl" in state and "visualdl" not in self.parts:  # or no longer
            VisualDL(self.folder / "visualdl").set_state_dict(state["visualdl"])

    @property
    def second_evaluations(self) -> list[SecondEvaluation]:
        return [second for second in (self.average, self.flips) if second is not None]

    @property
    def watchers(self) -> list[paddle.callbacks.Callback]:
        """Those that follow every evaluation."""
        return [self.progress, self.interruption]

    @property
    def epochs_done(self) -> int:
        return self.clock.epoch - self.clock.within_epoch

    @property
    def has_stopped(self) -> bool:
        return self.early_stopping is not None and self.early_stopping.stopped is not None

    def close(self) -> None:
        self.progress.close()
        if self.threads is not None:
            self.threads.close()
        if self.nan_skip is not None:
            self.nan_skip.close()
        self.interruption.close()
        if "visualdl" in self.parts:
            self.parts["visualdl"].close()


def _train(experiment: Experiment, watch: _Watch) -> Run:
    """Train what is left of a run, test it, and write its summary."""
    folder = watch.folder
    facts = experiment.facts
    environment = describe(experiment.device, experiment.engine)
    write_json(folder / "environment.json", environment)
    say(
        f"{folder}: {facts['parameters']:,} parameters, {facts['train_images']:,} images to train "
        f"on, {facts['eval_images']:,} to evaluate on; {experiment.device}, "
        f"{experiment.engine} engine"
    )
    with closing(experiment.loaders):
        _fit_epochs(experiment, watch)
        if watch.has_stopped:
            say(f"stopped early after epoch {watch.clock.epoch}: no better for some time")
        skipped = _note_skipped(experiment, watch)
        test = _test(experiment, watch)
    summary = summarize(experiment, watch.history.rows, environment, test)
    summary |= {"stopped_early": watch.has_stopped, "skipped_images": skipped}
    write_json(folder / "summary.json", summary)
    say(f"{clock_time(summary['seconds'])}, all in {folder}")
    for which, metrics in (("evaluation", summary["last"]["eval"]), ("test", test or {})):
        problem = absurd(metrics)
        if problem:
            raise RunFailed(f"the training diverged: the last {which}'s {problem}; {ADVICE}")
    return Run(experiment.model, folder, summary)


def documents(experiment: Experiment) -> dict[str, str]:
    """What a run was asked for and trained on, by file name: for its folder and its checkpoints."""
    return {
        CONFIG: dump_config(experiment.config),
        DATA: experiment.loaders.record.to_json(),
    }


def _write_documents(folder: Path, experiment: Experiment) -> None:
    for name, text in documents(experiment).items():
        write_text(folder / name, text)


def _fit_epochs(experiment: Experiment, watch: _Watch) -> None:
    """Train the epochs that are left, after the evaluation that the last one may await."""
    config, loaders = experiment.config, experiment.loaders
    try:
        if watch.checkpoint.awaits_evaluation:
            _evaluate_again(experiment, watch)
        epochs = config.training.epochs - watch.epochs_done
        if epochs > 0 and not watch.has_stopped:
            experiment.model.fit(
                loaders.train,
                loaders.evaluation,
                epochs=epochs,
                accumulate_grad_batches=config.training.accumulate,
                verbose=0,
                callbacks=watch.callbacks,
            )
    except Diverged as error:
        raise RunFailed(f"{error}; {describe_last(watch.checkpoint.folder / 'last')}") from error
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RunFailed) or not out_of_memory(error):
            raise
        raise RunFailed(
            f"memory ran out in epoch {watch.clock.epoch} after step {watch.clock.step}, at "
            f"data.batch_size {config.data.batch_size}; try a smaller one with a larger "
            "training.accumulate, or training.amp. The last checkpoint is untouched"
        ) from error
    finally:
        watch.close()


def _evaluate_again(experiment: Experiment, watch: _Watch) -> None:
    """Repeat the evaluation in which a run was interrupted, as a `fit` without epochs."""
    model, callbacks = experiment.model, watch.callbacks
    names = model._metrics_name()
    params = {"batch_size": None, "epochs": 0, "steps": None, "verbose": 0, "metrics": names}
    for callback in callbacks:
        callback.set_model(model)
        callback.set_params(params)
    for callback in callbacks:
        callback.on_train_begin()
    model.evaluate(experiment.loaders.evaluation, verbose=0, callbacks=callbacks)
    for callback in callbacks:
        callback.on_train_end()


def _note_skipped(experiment: Experiment, watch: _Watch) -> int:
    """Write down which images could not be read, and return how many."""
    skipped: dict[str, str] = getattr(experiment.loaders.train, "skipped", {})
    if skipped:
        file = watch.folder / "skipped_images.txt"
        lines = [f"{reason}\n" for reason in sorted(skipped.values())]
        write_text(file, "".join(lines))
        say(f"{len(skipped)} unreadable images skipped: {file}")
    return len(skipped)


def _test(experiment: Experiment, watch: _Watch) -> dict[str, float] | None:
    """Metrics on the test set, where another part was held out to judge epochs by."""
    loader = experiment.loaders.test
    if loader is None:
        return None
    watch.interruption.open()
    try:
        relay = Relay(watch.watchers, "test")
        test = plain_numbers(experiment.model.evaluate(loader, verbose=0, callbacks=[relay]))
        for second in watch.second_evaluations:
            judged = plain_numbers(second.evaluate(loader, "test"))
            test |= {second.prefix + name: value for name, value in judged.items()}
    finally:
        watch.close()
    watch.progress.print("test", test)
    return test


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


def require_space(folder: Path, experiment: Experiment) -> None:
    """Refuse to start a run whose checkpoints cannot fit on the disk.

    Raises:
        UserError: with the room there is and the room there must be.
    """
    config = experiment.config
    moments = {"sgd": 0, "momentum": 1, "muon": 1}.get(config.optimizer.name, 2)
    one = 4 * experiment.facts["parameters"] * (1 + moments + (config.training.ema is not None))
    # last, the one before, the next while it is written, best, and those that are kept.
    needed = one * (4 + config.checkpoint.keep)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder}: {free / 1e6:,.0f} MB are free on this disk, and the checkpoints of this "
            f"run need {needed / 1e6:,.0f} MB; see --output"
        )


def faster_data(loader: Loader) -> str:
    """What to change where a loader is too slow."""
    ways = []
    if isinstance(loader, FileLoader):
        cores = usable_cores()
        if loader.workers < cores:
            ways.append(f"data.workers={cores} instead of {loader.workers}")
        if loader.dataset.copies is None:
            ways.append("decoded images kept in a file, data.cache")
    ways.append("operations in augmentation.train that cost less")
    return "try " + ", or ".join(ways)


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
