"""Some training steps as Paddle's profiler sees them, for VisualDL's profiler page."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from paddle import profiler
from paddle.profiler.utils import TracerEventType

from resnet_fit.data.loading import Batch
from resnet_fit.files import write_text
from resnet_fit.reports.layer_times import LayerTimes
from resnet_fit.reports.steps import endless, train_step
from resnet_fit.reports.stopwatch import OPTIMIZER, REST, WAITING, Stopwatch
from resnet_fit.runs.experiment import Experiment
from resnet_fit.terminal import no_standard_error

# Few: one of ResNet-18 takes a megabyte.
STEPS = 3
# VisualDL takes what stands before ``_time_`` for the name of a worker.
FILE = "training_time_1.paddle_trace.json"
# The kinds of events that VisualDL's overview knows.
KINDS = {WAITING: TracerEventType.Dataloader, OPTIMIZER: TracerEventType.Optimization}


def write_trace(
    experiment: Experiment, watch: Stopwatch, layers: LayerTimes | None, folder: Path
) -> None:
    """Record some steps, and write them where VisualDL finds them.

    Args:
        watch, layers: those that follow the experiment's model.
        folder: made where there is none.
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
        marked = _marked(batches, watch)
        train_step(experiment, marked)  # not recorded: the loader makes its first batches
        with recorder:
            for _ in range(STEPS):
                train_step(experiment, marked)
                phases.end()
                recorder.step()
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / FILE, _for_visualdl(recorder))


def _marked(batches: Iterator[Batch], watch: Stopwatch) -> Iterator[Batch]:
    """The batches, with waiting for each as a phase."""
    while True:
        watch.mark(WAITING)
        batch = next(batches)  # they are endless
        watch.mark(REST)
        yield batch


class _Phases:
    """Phases of a step as events of a trace. Paddle makes those of forward and backward itself."""

    def __init__(self) -> None:
        self._event: profiler.RecordEvent | None = None

    def begin(self, phase: str) -> None:
        self.end()
        if phase in KINDS:
            self._event = profiler.RecordEvent(phase, KINDS[phase])
            self._event.begin()

    def end(self) -> None:
        if self._event is not None:
            self._event.end()
        self._event = None


def _for_visualdl(recorder: profiler.Profiler) -> str:
    """The trace as Paddle exports it, with what VisualDL reads besides."""
    # Paddle's C++ log says where the trace is written.
    with tempfile.TemporaryDirectory() as place, no_standard_error():
        raw = Path(place) / "trace.json"
        recorder.export(str(raw), "json")
        trace = json.loads(raw.read_text(encoding="utf-8"))
    # Paddle writes the one, VisualDL 2.5.3 reads the other.
    trace.setdefault("span_indx", trace.get("span_index", "0"))
    trace.setdefault("deviceProperties", [])  # without, VisualDL asks for a GPU
    return json.dumps(trace)
