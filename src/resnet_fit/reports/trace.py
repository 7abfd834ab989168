"""Some training steps as Paddle's profiler sees them, for VisualDL's profiler page."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from paddle import profiler
from paddle.profiler.utils import TracerEventType

from resnet_fit.data.loading import Batch
from resnet_fit.files import write_text
from resnet_fit.reports.layer_times import LayerTimes
from resnet_fit.reports.steps import endless
from resnet_fit.reports.stopwatch import OPTIMIZER, REST, WAITING, Stopwatch
from resnet_fit.runs.experiment import Experiment

# Few: one of ResNet-18 takes a megabyte.
STEPS = 3
# VisualDL takes what stands before ``_time_`` for the name of a worker.
FILE = "training_time_1.paddle_trace.json"


def write_trace(
    experiment: Experiment, watch: Stopwatch, layers: LayerTimes | None, folder: Path
) -> Path:
    """Record some steps, and write them where VisualDL finds them.

    Args:
        watch, layers: those that follow the experiment's model.
        folder: made where there is none.

    Returns:
        the file.
    """
    targets = [profiler.ProfilerTarget.CPU]
    if experiment.device.startswith("gpu"):
        targets.append(profiler.ProfilerTarget.GPU)
    # Without a word of what to do with the trace, it would be written to the current folder.
    recorder = profiler.Profiler(targets=targets, on_trace_ready=lambda _: None)
    phases = _Phases()
    watch.listener = phases.begin
    if layers is not None:
        layers.enabled, layers.around = True, profiler.RecordEvent
    with closing(experiment.loaders), closing(endless(experiment)) as batches:
        _step(experiment, watch, batches)  # not recorded: the loader makes its first batches
        with recorder:
            for _ in range(STEPS):
                _step(experiment, watch, batches)
                phases.end()
                recorder.step()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / FILE
    write_text(file, _for_visualdl(recorder))
    return file


def _step(experiment: Experiment, watch: Stopwatch, batches: Iterator[Batch]) -> None:
    model, accumulate = experiment.model, experiment.config.training.accumulate
    for batch in range(1, accumulate + 1):
        watch.mark(WAITING)
        images, labels = next(batches)
        watch.mark(REST)
        model.train_batch([images], [labels], update=batch == accumulate)
    model._optimizer._learning_rate.step()


class _Phases:
    """Phases of a step as events of a trace. Paddle makes those of forward and backward itself."""

    # VisualDL's overview knows these kinds.
    _KINDS = ((WAITING, TracerEventType.Dataloader), (OPTIMIZER, TracerEventType.Optimization))

    def __init__(self) -> None:
        self._event: profiler.RecordEvent | None = None

    def begin(self, phase: str) -> None:
        self.end()
        kind = dict(self._KINDS).get(phase)
        if kind is not None:
            self._event = profiler.RecordEvent(phase, kind)
            self._event.begin()

    def end(self) -> None:
        if self._event is not None:
            self._event.end()
        self._event = None


def _for_visualdl(recorder: profiler.Profiler) -> str:
    """The trace as Paddle exports it, with what VisualDL reads besides."""
    with tempfile.TemporaryDirectory() as place, _without_words():
        raw = Path(place) / "trace.json"
        recorder.export(str(raw), "json")
        trace = json.loads(raw.read_text(encoding="utf-8"))
    # Paddle writes the one, VisualDL 2.5.3 reads the other.
    trace.setdefault("span_indx", trace.get("span_index", "0"))
    trace.setdefault("deviceProperties", [])  # without, VisualDL asks for a GPU
    return json.dumps(trace)


@contextmanager
def _without_words() -> Iterator[None]:
    """Paddle says where it writes, by its own C++ log, to standard error."""
    before, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)
