"""What a person sees of a training: a bar in a terminal, a line per epoch elsewhere."""

from __future__ import annotations

import io
import re
import time as real_time

import paddle
import pytest
from passing import Time
from rich.console import Console
from softmax import EVAL, TRAIN, make_model

from resnet_fit.callbacks import Clock, ProgressBar
from resnet_fit.callbacks.progress import clock_time, show


class Pace(paddle.callbacks.Callback):
    """Batches of ten seconds to train on, and of five to evaluate; none is waited for."""

    def __init__(self, time):
        super().__init__()
        self.time = time

    def on_train_batch_end(self, step, logs=None):
        self.time.now += 10

    def on_eval_batch_begin(self, step, logs=None):
        self.time.now += 5


@pytest.fixture
def time(monkeypatch):
    fake = Time()
    for module in ("clock", "progress"):
        monkeypatch.setattr(f"resnet_fit.callbacks.{module}.time", fake)
    return fake


def fit(time, bar, *callbacks, model=None, evaluation=EVAL, epochs=3):
    callbacks = [Pace(time), bar, *callbacks]
    (model or make_model()).fit(TRAIN, evaluation, epochs=epochs, verbose=0, callbacks=callbacks)


def plain_lines(output):
    assert all(c.isprintable() or c == "\n" for c in output)
    return output.splitlines()


def visible(output):
    """A terminal's text, without what moves its cursor and colours it."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output)


METRICS = r"loss \d\.\d{4} top1 \d+\.\d\d % top3 \d+\.\d\d %"


def test_one_plain_line_per_epoch_where_there_is_no_terminal(time, capsys):
    fit(time, ProgressBar())
    lines = plain_lines(capsys.readouterr().out)
    assert len(lines) == 3
    for epoch, line in enumerate(lines, 1):
        pattern = rf"epoch {epoch}/3  train {METRICS}  1 img/s  eval {METRICS}  .* used, .* left"
        assert re.fullmatch(pattern, line)


def test_one_plain_line_per_epoch_without_evaluation(time, capsys):
    fit(time, ProgressBar(), evaluation=None)
    lines = plain_lines(capsys.readouterr().out)
    begins = [line.partition("  train")[0] for line in lines]
    assert begins == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert not any("eval" in line for line in lines)


def test_any_models_metrics_by_their_own_names(time, capsys):
    fit(time, ProgressBar(), model=make_model([paddle.metric.Accuracy()]), epochs=1)
    (line,) = plain_lines(capsys.readouterr().out)
    assert re.search(r"train loss \d\.\d+ acc 0\.\d+ .* eval loss \d\.\d+ acc 0\.\d+", line)


def test_time_used_and_left_of_the_run(time, capsys):
    """Thirty seconds of training and ten of evaluation an epoch."""
    fit(time, ProgressBar())
    ends = [line.split("  ")[-1] for line in capsys.readouterr().out.splitlines()]
    assert ends == ["0:40 used, 1:20 left", "1:20 used, 0:40 left", "2:00 used, 0:00 left"]


@pytest.mark.parametrize(("wait", "text"), [(0, None), (0.4, None), (1, "9 %"), (10, "50 %")])
def test_a_line_says_so_where_data_were_waited_for(time, capsys, wait, text):
    class Batches(list):
        def __iter__(self):
            for batch in super().__iter__():
                time.now += wait
                yield batch

    make_model().fit(Batches(TRAIN), verbose=0, callbacks=[Pace(time), ProgressBar()])
    (line,) = plain_lines(capsys.readouterr().out)
    assert re.findall(r"img/s  waits for data (\d+ %)  ", line) == ([text] if text else [])


def test_a_fit_that_is_the_rest_of_a_run(time, capsys):
    clock = Clock()
    fit(time, ProgressBar(3, clock), epochs=2)
    fit(time, ProgressBar(3, clock), epochs=1)
    lines = capsys.readouterr().out.splitlines()
    assert [line[:9] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert lines[2].endswith("2:00 used, 0:00 left")


class Look(paddle.callbacks.Callback):
    """Waits at one step until the terminal shows a text; it is redrawn a few times a second."""

    def __init__(self, screen, epoch, step, text):
        super().__init__()
        self.screen, self.at, self.text = screen, (epoch, step), text
        self.epoch, self.seen = 0, ""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch + 1

    def on_train_batch_end(self, step, logs=None):
        if (self.epoch, step + 1) == self.at:
            deadline = real_time.monotonic() + 10
            while self.text not in self.seen and real_time.monotonic() < deadline:
                real_time.sleep(0.02)
                self.seen = visible(self.screen.getvalue())


def terminal():
    return Console(force_terminal=True, file=io.StringIO(), width=160, highlight=False)


@pytest.mark.parametrize(
    ("epoch", "step", "text"),
    [
        (1, 2, "epoch 0:20<0:10  run 0:20<1:10"),  # what evaluation takes is not known yet
        (2, 1, "epoch 0:10<0:20  run 0:50<1:10"),
        (3, 3, "epoch 0:30<0:00  run 1:50<0:10"),
    ],
)
def test_a_bar_shows_time_used_and_left_of_epoch_and_run(time, epoch, step, text):
    console = terminal()
    look = Look(console.file, epoch, step, text)
    fit(time, ProgressBar(console=console), look)
    shown = look.seen.replace("\r", "\n").splitlines()
    (line,) = {line.strip() for line in shown if text in line}
    assert line.startswith(f"epoch {epoch}/3 ")
    assert f"{step}/3  loss " in line
    assert "img/s" in line


def test_a_terminal_keeps_the_lines_and_is_left_clean(time):
    console = terminal()
    fit(time, ProgressBar(console=console))
    output = console.file.getvalue()
    assert output.rfind("\x1b[?25h") > output.rfind("\x1b[?25l"), "the cursor is shown again"
    assert output.endswith("\x1b[2K"), "the bar is erased"
    for epoch in (1, 2, 3):
        assert re.search(rf"epoch {epoch}/3  train {METRICS}.*left", visible(output))


def test_close_gives_the_terminal_back_after_an_error(time):
    class Broken(paddle.callbacks.Callback):
        def on_train_batch_end(self, step, logs=None):
            raise RuntimeError("broken")

    console = terminal()
    bar = ProgressBar(console=console)
    with pytest.raises(RuntimeError, match="broken"):
        fit(time, bar, Broken())
    bar.close()
    bar.close()
    output = console.file.getvalue()
    assert output.rfind("\x1b[?25h") > output.rfind("\x1b[?25l")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (7.4, "0:07"), (59.6, "1:00"), (750, "12:30"), (3723, "1:02:03")],
)
def test_clock_time(seconds, text):
    assert clock_time(seconds) == text


def test_show():
    assert show({"loss": 1.23456, "top1": 0.567, "top5": 1.0, "acc": 0.5}) == (
        "loss 1.2346 top1 56.70 % top5 100.00 % acc 0.5000"
    )
