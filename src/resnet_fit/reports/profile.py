"""Where the time of a run's training steps goes, by phases and by layers."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from resnet_fit.callbacks import Checkpoint, Interruption, ProgressBar
from resnet_fit.data.loading import Batch
from resnet_fit.files import no_new_files
from resnet_fit.reports.layer_times import LayerTimes
from resnet_fit.reports.steps import endless, is_warm, memory_told
from resnet_fit.reports.stopwatch import CALLBACKS, PHASES, WAITING, Stopwatch
from resnet_fit.reports.table import print_table
from resnet_fit.reports.trace import write_trace
from resnet_fit.runs.callbacks import Callbacks
from resnet_fit.runs.config import Config
from resnet_fit.runs.experiment import Experiment, set_up

# Left out: they draw on the terminal, catch signals, or save checkpoints that nobody needs.
LEFT_OUT = (ProgressBar, Interruption, Checkpoint)


@dataclass
class Profile:
    """Seconds of optimizer steps.

    Attributes:
        computing: device, backend and precision, for people to read.
        images: of a step.
        steps: of each step without timed layers, the seconds of each phase.
        with_layers: the same of the steps between them, in which layers were timed.
        layers: of each of these steps, the seconds forward and backward by layer; none with a
            static graph, which has no layers.
        mark_seconds: what measuring the phases adds to a step.
    """

    computing: str
    images: int
    steps: list[dict[str, float]] = field(default_factory=list)
    with_layers: list[dict[str, float]] = field(default_factory=list)
    layers: list[dict[str, tuple[float, float]]] = field(default_factory=list)
    mark_seconds: float = 0.0

    def median(self, phase: str) -> float:
        return statistics.median(step.get(phase, 0.0) for step in self.steps)

    def share(self, phase: str) -> float:
        """Of the time of all steps together, in which a single slow one counts."""
        total = sum(sum(step.values()) for step in self.steps)
        return sum(step.get(phase, 0.0) for step in self.steps) / total

    @property
    def step_seconds(self) -> float:
        """The median of whole steps."""
        return _median_step(self.steps)

    def by_layer(self) -> list[tuple[str, float, float]]:
        """Name of a layer, median seconds forward and backward; the longest first."""
        names = dict.fromkeys(name for step in self.layers for name in step)
        rows = []
        for name in names:
            both = [step.get(name, (0.0, 0.0)) for step in self.layers]
            forward, backward = (statistics.median(b[i] for b in both) for i in (0, 1))
            rows.append((name, forward, backward))
        return sorted(rows, key=lambda row: -row[1] - row[2])

    @property
    def layers_cost(self) -> float | None:
        """How long a step takes when layers are timed, in steps without."""
        if not self.with_layers:
            return None
        return _median_step(self.with_layers) / self.step_seconds


def _median_step(steps: list[dict[str, float]]) -> float:
    return statistics.median(sum(step.values()) for step in steps)


def profile(config: Config, steps: int = 20, output: Path | None = None) -> Profile:
    """Time training steps of a config; those with timed layers take turns with those without.

    The callbacks are the run's own, but for checkpoints, the progress bar and signals; what they
    write is deleted.

    Args:
        steps: of the optimizer, of either kind.
        output: a folder for a trace that VisualDL shows, see `write_trace`.

    Raises:
        UserError: the run would not start, for the reason told.
        RunFailed: the memory does not suffice.
    """
    with no_new_files():
        experiment = set_up(config)
    accumulate, precision = config.training.accumulate, config.training.precision
    found = Profile(
        f"{experiment.device}, {experiment.execution}, {precision}",
        config.data.batch_size * accumulate,
    )
    watch, model = Stopwatch(experiment.device), experiment.model
    layers = None
    if experiment.execution.compile == "off":
        layers = LayerTimes(model.network, experiment.loaders.image_shape, watch)
    watch.follow(model)
    batches = _Batches(experiment, steps, watch, layers, found)
    with tempfile.TemporaryDirectory() as folder, closing(experiment.loaders):
        follows = Callbacks(experiment, Path(folder))
        inner = [c for c in follows.all if not isinstance(c, LEFT_OUT)]
        try:
            with memory_told(config):
                model.fit(
                    batches,
                    epochs=1,
                    accumulate_grad_batches=accumulate,
                    verbose=0,
                    callbacks=watch.callbacks(inner),
                )
        finally:
            follows.close()
    found.mark_seconds = batches.marks_per_step * _seconds_of_a_mark()
    if output is not None:
        write_trace(experiment, watch, layers, output)
    return found


def _seconds_of_a_mark() -> float:
    watch, count = Stopwatch(), 1000
    started = time.perf_counter()
    for _ in range(count):
        watch.mark(WAITING)
    return (time.perf_counter() - started) / count


class _Batches:
    """Batches for `fit`: a warm-up, then steps with timed layers and without, in turns.

    Attributes:
        marks_per_step: phases that begin in a step.
    """

    def __init__(
        self,
        experiment: Experiment,
        steps: int,
        watch: Stopwatch,
        layers: LayerTimes | None,
        found: Profile,
    ) -> None:
        self._experiment, self._steps = experiment, steps
        self._watch, self._layers, self._found = watch, layers, found
        self.marks_per_step = 0

    def __len__(self) -> int:
        """More than will be drawn: for `fit`, the end of the epoch never comes."""
        return sys.maxsize

    def __iter__(self) -> Iterator[Batch]:
        with closing(endless(self._experiment)) as batches:
            yield from self._warm_up(batches)
            kinds = [(self._found.steps, False)]
            if self._layers is not None:
                kinds.append((self._found.with_layers, True))
            for _ in range(self._steps):
                for steps, timed in kinds:
                    yield from self._step(batches, timed)
                    steps.append(self._watch.take())
                if self._layers is not None:
                    self._found.layers.append(self._layers.take())

    def _warm_up(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Steps whose times are forgotten, the last one with timed layers, which prepares those."""
        loader, group = self._experiment.loaders.train, self._group
        done, started = 0, time.perf_counter()
        while not is_warm(loader, group, done, time.perf_counter() - started):
            yield from self._step(batches, timed=False)
            done += group
        if self._layers is not None:
            yield from self._step(batches, timed=True)
            self._layers.take()
        self._watch.take()

    def _step(self, batches: Iterator[Batch], timed: bool) -> Iterator[Batch]:
        if self._layers is not None:
            self._layers.enabled = timed
        before = self._watch.marks
        for _ in range(self._group):
            self._watch.mark(WAITING)
            batch = next(batches)
            self._watch.mark(CALLBACKS)
            yield batch
        self._watch.mark(WAITING)
        self.marks_per_step = self._watch.marks - before

    @property
    def _group(self) -> int:
        return self._experiment.config.training.accumulate


def show(found: Profile, top: int, console: Console) -> None:
    """Print the phases of a step, and the layers that take longest."""
    step = found.step_seconds
    console.print(
        f"a step of {found.images:,} images takes {1e3 * step:.1f} ms, {found.images / step:,.0f} "
        f"images/s: medians of {len(found.steps)} steps; {found.computing}"
    )
    rows = [(p, f"{1e3 * found.median(p):.2f}", f"{found.share(p):.1%}") for p in PHASES]
    print_table(console, ("phase", "median ms", "of all time"), rows, numbers=(1, 2))
    _show_layers(found, top, console)
    console.print(f"measuring the phases takes {1e6 * found.mark_seconds:.0f} us of a step")
    if found.layers_cost is not None:
        console.print(
            f"steps with timed layers took {found.layers_cost:.2f} times as long; they count for "
            "the layers alone"
        )


def _show_layers(found: Profile, top: int, console: Console) -> None:
    if not found.layers:
        console.print("layers are not timed with training.compile: the graph is one operation")
        return
    layers = found.by_layer()
    total = sum(forward + backward for _, forward, backward in layers)
    rows = [_row(*layer, total) for layer in layers[:top]]
    if rest := layers[top:]:
        forward, backward = sum(r[1] for r in rest), sum(r[2] for r in rest)
        rows.append(_row(f"{len(rest)} more", forward, backward, total))
    print_table(console, ("layer", "forward ms", "backward ms", "share"), rows, numbers=(1, 2, 3))


def _row(name: str, forward: float, backward: float, total: float) -> tuple[str, ...]:
    share = (forward + backward) / total if total else 0.0
    return name, f"{1e3 * forward:.2f}", f"{1e3 * backward:.2f}", f"{share:.1%}"
