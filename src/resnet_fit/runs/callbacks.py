"""The callbacks of a run: built from its config, sorted, saved and restored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import paddle

from resnet_fit import parallel
from resnet_fit.callbacks import (
    Checkpoint,
    Clock,
    EarlyStopping,
    History,
    Interruption,
    NaNGuard,
    NaNSkip,
    ProgressBar,
    SlowData,
    StepSeed,
    VisualDL,
    WeightAverage,
)
from resnet_fit.callbacks.optional import Context
from resnet_fit.callbacks.phases import in_order
from resnet_fit.callbacks.second_evaluation import SecondEvaluation
from resnet_fit.callbacks.together import GroupSchedule, SameState
from resnet_fit.checkpoints.files import CHECKPOINTS
from resnet_fit.data.augment import Normalize
from resnet_fit.data.loading import FileLoader, Loader
from resnet_fit.errors import UserError
from resnet_fit.machine import usable_cores
from resnet_fit.runs.experiment import Experiment
from resnet_fit.runs.folder import documents
from resnet_fit.runs.outcome import METRICS
from resnet_fit.training.evaluated_epochs import EvaluatedEpochs

# Names in a checkpoint's state that no callback of a config or of a program may have.
OWN_STATES = ("checkpoint", "clock", "metrics", "schedule", "scaler")
OWN_NAMES = (*OWN_STATES, "loader", "history", "nan_skip")


class Callbacks:
    """The callbacks of one run.

    Attributes:
        all: every callback, sorted by phase.
        evaluated: the epochs that an evaluation follows.
        saved: what a checkpoint holds the state of, by name.
    """

    def __init__(
        self,
        experiment: Experiment,
        folder: Path,
        own: Sequence[paddle.callbacks.Callback] = (),
    ) -> None:
        config, loaders = experiment.config, experiment.loaders
        self.folder = folder
        several = parallel.size() > 1
        self.evaluated = EvaluatedEpochs(config.training.epochs, config.training.evaluate_every)
        self.clock = clock = Clock(dealer=loaders.dealer if several else None)
        file = folder / METRICS if parallel.is_first() else None
        self.history = History(file, clock)
        context = Context(
            config,
            folder,
            clock,
            loaders.evaluation,
            loaders.image_shape,
            training_normalisation(experiment),
        )
        chosen = {name: part.build(context) for name, part in config.callbacks.items() if part}
        handed = _named(own)
        _check_names(chosen, handed)
        skips = {"nan_skip": NaNSkip(clock=clock)} if config.training.on_nan == "skip" else {}
        named = {"history": self.history, **skips, **_here({**chosen, **handed})}
        self.saved: dict[str, Any] = {"loader": loaders.train}
        self.saved |= {name: c for name, c in named.items() if hasattr(c, "state_dict")}
        self.average = _only(WeightAverage, named)
        self.early_stopping = _only(EarlyStopping, named)
        _only(NaNSkip, named)  # refuses a second one
        self.visualdl = _only(VisualDL, named)
        self.checkpoint = Checkpoint(
            folder / CHECKPOINTS,
            **config.checkpoint.model_dump(),
            parts=self.saved,
            clock=clock,
            average=self.average,
            evaluated=self.evaluated,
            documents=documents(experiment),
        )
        self.interruption = Interruption(self.checkpoint)
        schedule = GroupSchedule(clock) if several else _schedule_of_paddle()
        together = [SameState(clock)] if several else []
        self.second_evaluations = [c for c in named.values() if isinstance(c, SecondEvaluation)]
        self.progress = self._progress(experiment)
        for second in self.second_evaluations:
            second.watchers = self.watchers
        for callback in (*self.second_evaluations, *self.watchers):
            callback.set_model(experiment.model)  # for a test without any epoch before it
        self.all = in_order(
            [
                *named.values(),
                schedule,
                StepSeed(config.training.seed, clock),
                NaNGuard(clock),
                *together,
                SlowData(faster_data(loaders.train), clock=clock),
                self.progress,
                self.checkpoint,
                self.interruption,
            ]
        )

    def _progress(self, experiment: Experiment) -> ProgressBar:
        loaders = experiment.loaders
        views = 1 + sum(second.views for second in self.second_evaluations)
        return ProgressBar(
            experiment.config.training.epochs,
            self.clock,
            evaluated=views * loaders.evaluation.count,
            tested=views * loaders.test.count if loaders.test is not None else 0,
            evaluate_every=self.evaluated.every,
        )

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

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the state of everything from a checkpoint.

        Raises:
            UserError: the checkpoint has no state of one of them, or one of no callback that is
                there.
        """
        unknown = sorted(state.keys() - {*OWN_STATES, *self.saved, "visualdl"})
        if unknown and parallel.is_first():  # only it has all callbacks
            raise UserError(
                f"callbacks: this run was trained with {', '.join(unknown)}; give the same to "
                "resume(folder, callbacks=[...])"
            )
        self.clock.set_state_dict(state["clock"])
        self.checkpoint.set_state_dict(state["checkpoint"])
        for name, part in self.saved.items():
            if name in state:
                part.set_state_dict(state[name])
            elif part is not self.visualdl:  # curves may be wanted later
                raise UserError(f"callbacks: this run was trained without {name}")
        # VisualDL was turned off for this resume: its records are cut back to the checkpoint. Only
        # the first process writes them.
        if "visualdl" in state and self.visualdl is None and parallel.is_first():
            VisualDL(self.folder / "visualdl").set_state_dict(state["visualdl"])

    def close(self) -> None:
        """Close all callbacks: done at the end of `fit`, and needed after an error."""
        for callback in self.all:
            if hasattr(callback, "close"):
                callback.close()


def _schedule_of_paddle() -> paddle.callbacks.Callback:
    schedule = paddle.callbacks.LRScheduler()
    schedule.phase = "schedule"
    return schedule


def _here(
    named: dict[str, paddle.callbacks.Callback],
) -> dict[str, paddle.callbacks.Callback]:
    """Those that this process runs: what only writes figures down, the first one alone does."""
    if parallel.is_first():
        return named
    return {
        name: callback
        for name, callback in named.items()
        if getattr(callback, "phase", "record") != "record"
        or getattr(callback, "everywhere", False)
    }


def _named(own: Sequence[paddle.callbacks.Callback]) -> dict[str, paddle.callbacks.Callback]:
    """A user's callbacks by the names of their classes, numbered where these come twice."""
    named: dict[str, paddle.callbacks.Callback] = {}
    for callback in own:
        name = type(callback).__name__
        same = sum(type(other).__name__ == name for other in named.values())
        named[f"{name}-{same + 1}" if same else name] = callback
    return named


def _check_names(chosen: Mapping[str, Any], handed: Mapping[str, Any]) -> None:
    """Refuse a callback that would replace another one, or a state of the run's own."""
    for name in (*chosen, *handed):
        if name in OWN_NAMES:
            raise UserError(f"callbacks: {name} is a name of the run's own; use another one")
    for name in handed:
        if name in chosen:
            raise UserError(
                f"callbacks: {name} is turned on in the config and handed over as well; leave one "
                "of them out"
            )


def _only(kind: type, named: dict[str, Any]) -> Any:
    """The callback of a kind, or None.

    Raises:
        UserError: there are several.
    """
    found = [name for name, callback in named.items() if isinstance(callback, kind)]
    if len(found) > 1:
        raise UserError(f"callbacks: {kind.__name__} is there twice, as {' and '.join(found)}")
    return named[found[0]] if found else None


def training_normalisation(experiment: Experiment) -> tuple[Any, Any] | None:
    """Mean and deviation that the training's images are normalised by, or None."""
    config = experiment.config
    for operation in config.augmentation.built(config.data, "train"):
        if isinstance(operation, Normalize):
            if operation.mean is None:
                return experiment.loaders.record.normalisation
            return operation.mean, operation.std
    return None


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
