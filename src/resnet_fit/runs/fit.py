"""Trains an experiment in a folder of its own, and goes on with it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paddle
from paddle import nn

from resnet_fit import gpu, parallel
from resnet_fit.callbacks import Relay, WeightAverage
from resnet_fit.callbacks.logs import as_numbers
from resnet_fit.callbacks.nan_guard import ADVICE, absurd
from resnet_fit.checkpoints.files import CHECKPOINTS, CONFIG, DATA, find_checkpoint, last_of
from resnet_fit.checkpoints.folder import describe_last, load_whole, needed_files, read_state
from resnet_fit.data.dataset import Dataset
from resnet_fit.data.datasets.data import Parts
from resnet_fit.data.record import DataRecord
from resnet_fit.errors import Diverged, RunFailed, UserError, out_of_memory, require
from resnet_fit.files import lock, write_json, write_text
from resnet_fit.home import expand
from resnet_fit.live_line import clock_time
from resnet_fit.machine import has_bfloat16
from resnet_fit.run_log import RunLog
from resnet_fit.runs.automatic import recorded
from resnet_fit.runs.callbacks import Callbacks
from resnet_fit.runs.config import Config
from resnet_fit.runs.experiment import Experiment, set_up
from resnet_fit.runs.folder import check_name, make_folder, require_space, write_documents
from resnet_fit.runs.outcome import ENVIRONMENT, LOG, SUMMARY
from resnet_fit.runs.processes import check_processes
from resnet_fit.runs.resuming import (
    checkpoint_config,
    follow_epochs,
    require_epochs,
)
from resnet_fit.runs.sharing import checkpoint_of_first, require_same_config, run_config
from resnet_fit.runs.summary import summarize
from resnet_fit.runtime import choose_device, describe
from resnet_fit.terminal import recording, say
from resnet_fit.training.evaluated_epochs import EvaluationFrequency


@dataclass(frozen=True)
class Run:
    """A finished training: the model, its folder, and the content of ``summary.json``."""

    model: paddle.Model
    folder: Path
    summary: dict[str, Any]


@dataclass(frozen=True)
class Given:
    """What a program hands over beside the config: see `fit`."""

    network: nn.Layer | None = None
    data: Parts | None = None
    callbacks: Sequence[paddle.callbacks.Callback] = ()

    @classmethod
    def of(
        cls,
        config: Config,
        network: nn.Layer | None,
        data: Sequence[Dataset] | None,
        callbacks: Sequence[paddle.callbacks.Callback],
    ) -> Given:
        """Check that a config says ``given`` of what is handed over, and only of that."""
        for section, value in (("model", network), ("data", data)):
            name = getattr(config, section).part_name
            argument = "network" if section == "model" else "data"
            if value is not None and name != "given":
                raise UserError(
                    f"{argument}: received one, but the config describes {section}: "
                    f"{{name: {name}}}; leave it out, or set {section}.name: given"
                )
        return cls(network, _parts(data), tuple(callbacks))

    @property
    def averages_weights(self) -> bool:
        """Whether a callback that was handed over keeps an average of the weights."""
        return any(isinstance(callback, WeightAverage) for callback in self.callbacks)


def _parts(data: Sequence[Dataset] | None) -> Parts | None:
    """Data sets that a program hands over, as the parts of a run's data."""
    if data is None:
        return None
    sets = 1 if isinstance(data, Dataset) else len(data)
    require(sets in (2, 3), "data", sets, "2 or 3 data sets: to train on, to evaluate on, to test")
    return Parts(*data, *[None] * (3 - sets))


def fit(
    config: Config,
    output: str | Path = "runs",
    name: str | None = None,
    *,
    numbered: bool = False,
    network: nn.Layer | None = None,
    data: Sequence[Dataset] | None = None,
    callbacks: Sequence[paddle.callbacks.Callback] = (),
) -> Run:
    """Train, evaluate and log one experiment.

    Args:
        config: from `load_config` or `parse_config`.
        output: the folder that runs go to.
        name: the run's own folder in it; the time of the start by default.
        numbered: whether a number follows the name if it is taken; always without a name.
        network: maps images ``[N, C, H, W]`` to logits; for ``model: {name: given}``.
        data: the data set to train on, the one to evaluate on and, if there is a third one, the one
            to test on at the end; for ``data: {name: given}``.
        callbacks: more of them. What has ``state_dict`` and ``set_state_dict`` is saved and
            restored; an attribute ``phase`` says where it stands (`resnet_fit.callbacks.phases`).

    Raises:
        UserError: for a mistake in config or data; without a checkpoint, no folder is left.
        RunFailed: when the run cannot begin, and then no folder is left, or cannot go on.
    """
    with parallel.telling():
        given = Given.of(config, network, data, callbacks)
        join(config)
        numbered = numbered or name is None
        name = name or time.strftime("%Y%m%d-%H%M%S")
        return _begin_in(expand(output), name, numbered, config, given)


def _begin_in(output: Path, name: str, numbered: bool, config: Config, given: Given) -> Run:
    parallel.first(lambda: check_name(output, name, numbered))
    with recording() as log:
        experiment = set_up(config, given.network, given.data)
        folder = Path(parallel.first(lambda: str(make_folder(output, name, numbered))))
        try:
            with _owned(folder):
                callbacks = Callbacks(experiment, folder, given.callbacks)
                _open_log(log, folder)
                parallel.first(lambda: _begin(folder, experiment))
                if experiment.weights is not None:
                    say(f"starts from {experiment.weights}")
                return _train(experiment, callbacks)
        except (UserError, RunFailed) as error:
            # A training that failed keeps its log, also before its first checkpoint.
            kept_for = CHECKPOINTS if isinstance(error, UserError) else CONFIG
            if parallel.is_first() and not (folder / kept_for).exists():
                log.close()
                shutil.rmtree(folder)  # nothing to go on from, and its name is free again
            raise


def resume(
    folder: str | Path,
    overrides: Sequence[str] = (),
    *,
    network: nn.Layer | None = None,
    data: Sequence[Dataset] | None = None,
    callbacks: Sequence[paddle.callbacks.Callback] = (),
) -> Run:
    """Go on with a run from its last checkpoint, as if it had never stopped.

    Args:
        folder: the run's folder; its config travels with it.
        overrides: assignments; ``training.epochs`` may extend a run.
        network, data, callbacks: what `fit` was given.

    Raises:
        UserError: not a run, nothing to go on from, or settings or data that are not the run's;
            then nothing is written.
    """
    folder = expand(folder)
    with parallel.telling(), recording() as log:
        config = run_config(folder, overrides)
        given = Given.of(config, network, data, callbacks)
        join(config)
        with _owned(folder):
            return _go_on(folder, config, given, log)


def join(config: Config) -> None:
    """Make the processes that train together a group, where a launcher started several.

    Raises:
        UserError: this config cannot be trained by so many, or is not that of the first process.
    """
    if parallel.size() > 1:
        check_processes(config, parallel.size())
        require_same_config(config)
        parallel.start(choose_device(config.training.device))


def _owned(folder: Path) -> AbstractContextManager[Any]:
    """A run's folder, which one process on one machine may write to at a time."""
    return lock(folder) if parallel.is_first() else nullcontext()


def _open_log(log: RunLog, folder: Path) -> None:
    if parallel.is_first():
        log.open(folder / LOG)


def _begin(folder: Path, experiment: Experiment) -> None:
    require_space(folder, experiment)
    write_documents(folder, experiment)


def _go_on(folder: Path, config: Config, given: Given, log: RunLog) -> Run:
    averages = config.averages_weights or given.averages_weights
    needed = [*needed_files(averages), CONFIG, DATA]
    found = parallel.first(lambda: str(find_checkpoint(last_of(folder), needed)))
    with checkpoint_of_first(found) as files:
        state = read_state(files)
        require_epochs(config, state)
        kept, data = checkpoint_config(files), DataRecord.read(files / DATA)
        was = parallel.first(lambda: recorded(folder, kept))
        experiment = set_up(config, given.network, given.data, data, was)
        callbacks = Callbacks(experiment, folder, given.callbacks)
        load_whole(files, experiment.model, callbacks.average)
        callbacks.restore(state)
        _open_log(log, folder)
        follow_epochs(experiment, state, kept)
    callbacks.checkpoint.complete(Path(found))
    say(f"goes on from {found} after step {callbacks.clock.step}")
    parallel.first(lambda: write_documents(folder, experiment))
    return _train(experiment, callbacks)


def _train(experiment: Experiment, callbacks: Callbacks) -> Run:
    """Train what is left of a run, test it, and write its summary."""
    folder, counts = callbacks.folder, experiment.counts
    execution = experiment.execution
    environment = describe(experiment.device, execution.backend) | execution.to_dict()
    if parallel.is_first():
        write_json(folder / ENVIRONMENT, environment)
    say(
        f"{folder}: {counts['parameters']:,} parameters, {counts['train_images']:,} images to "
        f"train on, {counts['eval_images']:,} to evaluate on; {experiment.device}, "
        f"{execution}, {_precision(experiment)}"
    )
    if experiment.device != "cpu":
        say(f"{experiment.device}: {gpu.summary(int(experiment.device[4:]))}")
    with closing(experiment.loaders):
        _fit_epochs(experiment, callbacks)
        if callbacks.has_stopped:
            say(f"stopped early after epoch {callbacks.clock.epoch}: no better for some time")
        skipped = _note_skipped(experiment, callbacks)
        test = _test(experiment, callbacks)
    summary = summarize(experiment, callbacks.history.rows, environment, test)
    summary |= {"stopped_early": callbacks.has_stopped, "skipped_images": skipped}
    if parallel.is_first():
        write_json(folder / SUMMARY, summary)
    say(f"{clock_time(summary['seconds'])}, all in {folder}")
    for which, metrics in (("evaluation", summary["last"].get("eval", {})), ("test", test or {})):
        problem = absurd(metrics)
        if problem:
            raise RunFailed(f"the training diverged: the last {which}'s {problem}; {ADVICE}")
    return Run(experiment.model, folder, summary)


def _precision(experiment: Experiment) -> str:
    """The precision of a run, and whether this processor may have a faster one.

    Whether it is faster depends on the processor: ResNet-18 took 0.55 of the time on an AMD Zen 4,
    and 1.5 times as long on an Intel Xeon with AVX512-BF16 but without AMX.
    """
    precision = experiment.config.training.precision
    if precision == "float32" and experiment.execution.backend == "onednn" and has_bfloat16():
        return "float32 (training.precision=bfloat16 may be faster: see resnet-fit doctor)"
    return precision


def _fit_epochs(experiment: Experiment, callbacks: Callbacks) -> None:
    """Repeat an evaluation that was interrupted, if there is one, and train the epochs left."""
    config, loaders = experiment.config, experiment.loaders
    try:
        if callbacks.checkpoint.awaits_evaluation:
            _evaluate_again(experiment, callbacks)
        epochs = config.training.epochs - callbacks.epochs_done
        if epochs > 0 and not callbacks.has_stopped:
            experiment.model.fit(
                loaders.train,
                loaders.evaluation,
                epochs=epochs,
                eval_freq=EvaluationFrequency(callbacks.evaluated, callbacks.epochs_done),
                accumulate_grad_batches=config.training.accumulate // parallel.size(),
                verbose=0,
                callbacks=callbacks.all,
            )
    except Diverged as error:
        raise RunFailed(
            f"{error}; {describe_last(callbacks.checkpoint.folder / 'last')}"
        ) from error
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RunFailed) or not out_of_memory(error):
            raise
        raise RunFailed(
            f"memory ran out in epoch {callbacks.clock.epoch} after step {callbacks.clock.step}, "
            f"at data.batch_size {config.data.batch_size}; try a smaller one with a larger "
            "training.accumulate, or another training.precision. The last checkpoint is untouched"
        ) from error
    finally:
        callbacks.close()


def _evaluate_again(experiment: Experiment, callbacks: Callbacks) -> None:
    """Repeat the evaluation in which a run was interrupted, as a `fit` without epochs."""
    model = experiment.model
    names = model._metrics_name()
    params = {"batch_size": None, "epochs": 0, "steps": None, "verbose": 0, "metrics": names}
    for callback in callbacks.all:
        callback.set_model(model)
        callback.set_params(params)
    for callback in callbacks.all:
        callback.on_train_begin()
    model.evaluate(experiment.loaders.evaluation, verbose=0, callbacks=callbacks.all)
    for callback in callbacks.all:
        callback.on_train_end()


def _note_skipped(experiment: Experiment, callbacks: Callbacks) -> int:
    """Write down which images could not be read, and return how many."""
    skipped: dict[str, str] = getattr(experiment.loaders.train, "skipped", {})
    if skipped:
        file = callbacks.folder / "skipped_images.txt"
        lines = [f"{reason}\n" for reason in sorted(skipped.values())]
        write_text(file, "".join(lines))
        say(f"unreadable images left out: {len(skipped)}, listed in {file}")
    return len(skipped)


def _test(experiment: Experiment, callbacks: Callbacks) -> dict[str, float] | None:
    """Metrics on the test set, where another part was held out to judge epochs by."""
    loader = experiment.loaders.test
    if loader is None:
        return None
    callbacks.interruption.open()
    try:
        relay = Relay(callbacks.watchers, "test")
        metrics = experiment.model.evaluate(loader, verbose=0, callbacks=[relay])
        for second in callbacks.second_evaluations:
            metrics |= second.evaluate(loader, "test")
    finally:
        callbacks.close()
    test = as_numbers(metrics)
    callbacks.progress.print("test", test)
    return test
