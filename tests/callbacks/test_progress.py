"""What a person sees of a training: a live line in a terminal, a line per epoch everywhere."""

from __future__ import annotations

import io
import re

import paddle
import pytest
from passing import Time
from rich.console import Console
from screen import Screen
from softmax import EVAL, TRAIN, make_model

from resnet_fit.callbacks import Clock, ProgressBar, Relay, WeightAverage
from resnet_fit.callbacks.progress import show
from resnet_fit.live_line import clock_time
from resnet_fit.terminal import packed


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
    for module in ("clock", "progress", "time_left"):
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


class RelayedPace(Pace):
    """The same where a `Relay` tells of the batches."""

    def on_eval_batch_end(self, step, logs=None):
        self.time.now += 5


class Frames(paddle.callbacks.Callback):
    """What the live line shows after each batch, by epoch; to be listed after the bar."""

    def __init__(self, bar):
        super().__init__()
        self.bar, self.epoch, self.shown = bar, 0, []

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch + 1

    def on_train_batch_end(self, step, logs=None):
        console = self.bar.console
        frame = self.bar.live_line.__rich_console__(console, console.options)
        self.shown.append((self.epoch, "".join(segment.text for segment in frame)))

    on_eval_batch_end = on_train_batch_end

    def of(self, epoch, title):
        return [frame for number, frame in self.shown if number == epoch and title in frame]


def terminal(width=160):
    return Console(force_terminal=True, file=io.StringIO(), width=width, highlight=False)


@pytest.mark.parametrize(
    ("epoch", "step", "times"),
    [
        (1, 2, ["ends in 0:10", "0:20 used", "1:10 left"]),  # evaluation is not known yet
        (2, 1, ["ends in 0:20", "0:50 used", "1:10 left"]),
        (3, 3, ["ends in 0:00", "1:50 used", "0:10 left"]),
    ],
)
def test_a_bar_shows_time_used_and_left_of_epoch_and_run(time, epoch, step, times):
    bar = ProgressBar(console=terminal())
    frames = Frames(bar)
    fit(time, bar, frames)
    frame = frames.of(epoch, "epoch ends")[step - 1]
    assert frame.startswith(f"epoch {epoch}/3 ━")
    assert re.search(rf"  {step}/3 +loss \d\.\d+ +top1 ..... % +top3 ..... % +1 img/s ", frame)
    assert re.findall(r"(?:ends in )?\d:\d\d(?: used| left)?", frame) == times


def test_the_bar_moves_in_every_evaluation_and_says_which(time):
    """Five seconds a batch, so fifteen for the three batches of each."""
    bar = ProgressBar(console=terminal(), evaluated=2 * 21)
    average = WeightAverage(TRAIN, clock=bar.clock)
    frames = Frames(bar)
    average.watchers = [RelayedPace(time), bar, frames]
    fit(time, average, bar, frames, evaluation=TRAIN, epochs=2)
    for title in ("evaluate ━", "evaluate average ━"):
        for epoch in (1, 2):
            shown = frames.of(epoch, title)
            assert [re.findall(r"(\d)/3 ", frame) for frame in shown] == [["1"], ["2"], ["3"]]
            assert all(f"epoch {epoch}/2" in frame for frame in shown)
            lengths = [frame.count("━") for frame in shown]
            assert lengths == sorted(set(lengths))
    left = [re.findall(r"0:\d\d left", frame)[0] for frame in frames.of(2, "")]
    assert left == [f"0:{seconds:02} left" for seconds in (50, 40, 30, 24, 19, 15, 9, 4, 0)]


def test_time_left_counts_evaluations_before_the_first_one_was_timed(time):
    """Sixteen images in twenty seconds, evaluated three times as fast: 4.6 seconds for eleven."""
    bar = ProgressBar(console=terminal(), evaluated=11, tested=110)
    frames = Frames(bar)
    fit(time, bar, frames)
    assert frames.of(1, "epoch ends")[1].endswith("  2:10 left")  # 10 + 2 * 30 + 3 * 4.6 + 46


def test_a_test_after_the_training_has_a_bar_as_well(time, capsys):
    console = terminal()
    bar = ProgressBar(console=console, evaluated=11, tested=21)
    frames, model = Frames(bar), make_model()
    fit(time, bar, frames, model=model, epochs=1)
    relay = Relay([RelayedPace(time), bar, frames], "test")
    model.evaluate(TRAIN, verbose=0, callbacks=[relay])
    bar.close()
    shown = [frame for _, frame in frames.shown if frame.startswith("test ━")]
    assert len(shown) == 3
    assert shown[-1].endswith(" 0:00 left")
    assert console.file.getvalue().endswith("\x1b[2K"), "the bar is erased"


def test_an_evaluation_alone_has_a_bar_and_no_line(time):
    console = terminal()
    model = make_model()
    model.evaluate(EVAL, verbose=0, callbacks=[ProgressBar(console=console)])
    assert "evaluate ─" in visible(console.file.getvalue())
    assert console.file.getvalue().endswith("\x1b[2K"), "the bar is erased"
    assert "\n" not in console.file.getvalue().rstrip("\x1b[2K1A?5h\r\n")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_lines_of_epochs_are_broken_between_their_parts(time, width):
    console = terminal(width)
    fit(time, ProgressBar(console=console))
    screen = Screen(width)
    screen.feed(console.file.getvalue())
    assert screen.wrapped == 0
    last = next(i for i, line in enumerate(screen.lines) if line.startswith("epoch 3/3  train"))
    rest = [line for line in screen.lines[last + 1 :] if line]
    indent = "" if width < 80 else " " * 9
    assert all(re.match(rf"{indent}  \S", line) for line in rest)
    assert len(rest) == {60: 2, 80: 1, 120: 1}[width]
    assert (screen.line, screen.shows_cursor) == ("", True)


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


def test_packed():
    pieces = ["epoch 1/2", "train loss 1.0", "eval loss 2.0", "0:01 used"]
    assert packed(pieces) == ["epoch 1/2  train loss 1.0  eval loss 2.0  0:01 used"]
    assert packed(pieces, 80) == packed(pieces)
    assert packed(pieces, 40) == ["epoch 1/2  train loss 1.0", "  eval loss 2.0  0:01 used"]
    assert packed([*pieces, "x" * 70], 80)[1] == " " * 11 + "x" * 70
    assert packed(["猫", "x" * 77], 80) == ["猫", " " * 4 + "x" * 77]
