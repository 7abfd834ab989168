"""The command as a person meets it: in a shell, in a pipe, in a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from PIL import Image
from screen import Screen

from resnet_fit import __version__
from resnet_fit.cli import main
from resnet_fit.config.document import dump

SOURCE = Path(__file__).resolve().parents[1] / "src"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(SOURCE), "TERM": "xterm-256color", "COLUMNS": "160"}
PROGRAM = "import sys; from resnet_fit.cli import main; sys.exit(main())"


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", PROGRAM, *map(str, arguments)]


def run(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        timeout=120,
        **options,
    )


# --- without Paddle -------------------------------------------------------------------


def test_help_shows_examples_that_can_be_run(repository):
    text = run("--help").stdout
    examples = re.findall(r"^  (resnet-fit .*)$", text, re.MULTILINE)
    assert len(examples) >= 4
    configs = re.findall(r"configs/\S+\.yaml", text)
    assert configs
    assert all((repository / config).is_file() for config in configs)
    assert "exit codes: 0 done, 1 the run failed, 2 a mistake" in text


def test_version():
    assert run("--version").stdout == f"resnet-fit {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["--config", "nowhere.yaml"], 2),
        (["--config", "configs/resnet18_digits.yaml", "--set", "training.epochs=-1"], 2),
        (["--config", "configs/resnet18_digits.yaml", "--set", "augmentation.train=[x]"], 2),
        (["--config", "configs/resnet18_digits.yaml", "--dry-run", "--set", "training.seed=-1"], 2),
        (["--resume", "nowhere", "--dry-run"], 2),
        (["--resume", "nowhere"], 2),
        (["--resume", "nowhere", "--name", "x"], 2),
        (["view", "--help"], 0),
        (["view", "nowhere"], 2),
        (["compare", "--help"], 0),
        (["compare", "runs", "--format", "jsn"], 2),
        (["doctor", "--help"], 0),
        (["doctor", "--jsn"], 2),
        (["evaluate", "--help"], 0),
        (["evaluate", "nowhere"], 2),
        (["evaluate", "docs"], 2),
        (["evaluate", "docs", "--device", "tpu"], 2),
        (["predict", "--help"], 0),
        (["predict", "nowhere", "x.jpg"], 2),
        (["predict", "docs", "x.jpg"], 2),
        (["predict", "docs", "x.jpg", "--device", "tpu"], 2),
        (["viev"], 2),
    ],
)
def test_nothing_slow_is_imported_for_help_and_mistakes(repository, arguments, code):
    program = (
        "import sys\n"
        "from resnet_fit.cli import main\n"
        "try:\n    code = main()\n"
        "except SystemExit as stop:\n    code = stop.code or 0\n"
        "slow = {'paddle', 'visualdl', 'sklearn', 'PIL', 'rich'} & set(sys.modules)\n"
        "print('imported:', *sorted(slow))\n"
        "sys.exit(code)\n"
    )
    started = time.monotonic()
    process = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        cwd=repository,
    )
    assert time.monotonic() - started < 2
    *said, imported = process.stdout.splitlines()
    assert imported == "imported:"
    assert process.returncode == code
    assert said or code
    assert len(process.stderr.splitlines()) == (1 if code else 0)


def test_importing_the_package_does_not_import_paddle():
    program = "import sys, resnet_fit; print('paddle' in sys.modules)"
    process = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=ENVIRONMENT
    )
    assert process.stdout == "False\n"


# --- a run ----------------------------------------------------------------------------


@pytest.fixture
def config(tiny, write_yaml) -> Path:
    tiny["data"]["batch_size"] = 256
    return write_yaml(tiny)


def test_redirected_output_is_plain_text_and_one_line_per_epoch(
    config, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    output = "my runs [old] [/x] :cat:"  # no markup
    changes = ["--set", "training.epochs=3", "--output", output, "--name", "run"]
    assert main(["--config", str(config), *changes]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert all(c.isprintable() or c == "\n" for c in out)
    lines = out.splitlines()
    assert lines[0] == "set training.epochs=3"
    assert lines[1].startswith(f"{output}/run: 5,122 parameters")
    assert [line[:9] for line in lines[2:5]] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert lines[5].endswith(f", all in {output}/run")
    assert len(lines) == 6


@pytest.fixture
def fitted(monkeypatch):
    """What `fit` is asked for; it does nothing here."""
    asked = []
    monkeypatch.setattr(
        "resnet_fit.runs.fit.fit", lambda *a, numbered: asked.append((*a, numbered))
    )
    return asked


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("cifar.yaml", "cifar-"),
        ("first-try/config.yaml", "first-try-"),
        ("my run (2).yaml", "my-run-2--"),  # without what a run's name may not have
    ],
)
def test_a_run_is_named_after_its_config_and_the_time(tiny, tmp_path, fitted, name, folder):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(dump(tiny))
    assert main(["--config", str(file)]) == 0
    ((_, output, run_name, numbered),) = fitted
    assert (output, numbered) == ("runs", True)
    assert re.fullmatch(re.escape(folder) + r"\d{8}-\d{6}", run_name)


def test_a_run_of_a_pipe_is_named_after_the_time_alone(tiny, fitted):
    """As of the shell's ``<(...)``, whose file is called by a number."""
    reader, writer = os.pipe()
    os.write(writer, dump(tiny).encode())
    os.close(writer)
    try:
        assert main(["--config", f"/dev/fd/{reader}"]) == 0
    finally:
        os.close(reader)
    ((_, _, run_name, _),) = fitted
    assert re.fullmatch(r"\d{8}-\d{6}", run_name)


def test_a_run_that_fails_by_itself_exits_with_one(config, tmp_path, capsys, monkeypatch):
    from resnet_fit.errors import RunFailed

    def fail(*_, **__):
        raise RunFailed("the disk is full")

    monkeypatch.setattr("resnet_fit.runs.fit.fit", fail)
    assert main(["--config", str(config)]) == 1
    assert capsys.readouterr().err == "resnet-fit: the disk is full\n"


def test_a_setting_that_changes_nothing_is_told_in_one_line(config, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    late = "schedule={name: step, every_epochs: 9}"
    assert main(["--config", str(config), "--set", late, "--name", "no/name"]) == 2
    told, mistake = capsys.readouterr().err.splitlines()
    assert told == (
        "resnet-fit: warning: --set schedule: schedule.every_epochs: 9 with training.epochs 2: "
        "changes nothing"
    )
    assert mistake.startswith("resnet-fit: --name: ")


# --- output that is closed -------------------------------------------------------------


def in_shell(words, *arguments, folder):
    """A command line of bash, with ``COMMAND`` for this program; exit codes end its output."""
    line = words.replace("COMMAND", shlex.join(command(*arguments)))
    return subprocess.run(
        ["bash", "-c", f"{line}; echo ${{PIPESTATUS[*]}}"],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        cwd=folder,
        timeout=120,
    )


def test_a_training_goes_on_when_nobody_reads_it_any_more(config, tmp_path):
    arguments = ["--config", config, "--name", "run", "--set", "training.epochs=2"]
    process = in_shell("COMMAND | head -1", *arguments, folder=tmp_path)
    assert process.stdout == "set training.epochs=2\n0 0\n"
    assert process.stderr == (
        "resnet-fit: standard output: Broken pipe; the run goes on, and its run.log has these "
        "lines\n"
    )
    log = log_lines(tmp_path / "runs" / "run")
    assert [line[:9] for line in log if line.startswith("epoch")] == ["epoch 1/2", "epoch 2/2"]
    assert log[-1].endswith(", all in runs/run")


@pytest.mark.parametrize("redirection", [">&- 2>&- <&-", "2>&1 | true"])
def test_a_training_goes_on_without_any_output(config, tmp_path, redirection):
    process = in_shell(
        f"COMMAND {redirection}", "--config", config, "--name", "run", folder=tmp_path
    )
    assert process.stdout.split()[0] == "0"
    assert process.stderr == ""
    folder = tmp_path / "runs" / "run"
    assert log_lines(folder)[-1].endswith(", all in runs/run")
    rows = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["epoch"] for row in rows] == [1, 2], "nothing else was written to it"


def test_output_that_cannot_be_written_is_told(tmp_path):
    """Also what Python would have written when it ends."""
    arguments = ["doctor", "--no-measure", "--json"]
    process = in_shell("COMMAND > /dev/full", *arguments, folder=tmp_path)
    assert process.stdout == "1\n"
    assert process.stderr == "resnet-fit: standard output: No space left on device\n"


@pytest.mark.parametrize("arguments", [["check", "--config"], ["doctor", "--no-measure", "--json"]])
def test_other_commands_end_quietly_when_nobody_reads_them(config, tmp_path, arguments):
    more = [config] if arguments[-1] == "--config" else []
    process = in_shell("COMMAND | true", *arguments, *more, folder=tmp_path)
    assert (process.stdout, process.stderr) == ("141 0\n", "")


def test_a_failed_run_has_its_reason_in_its_log(config, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rate = ["--set", "optimizer.learning_rate=1e39", "--set", "schedule.name=constant"]
    assert main(["--config", str(config), *rate, "--name", "run"]) == 1
    reason = capsys.readouterr().err.splitlines()[-1].removeprefix("resnet-fit: ")
    assert log_lines(tmp_path / "runs" / "run")[-1] == f"error: {reason}"


# --- a terminal -----------------------------------------------------------------------


class Terminal:
    """A command in a pseudo-terminal; what it writes is in ``screen``, what it shows in ``shown``.

    ``frames`` are the lines that the cursor was in, one after another.
    """

    def __init__(self, *arguments: object, columns: int = 160, **variables: str) -> None:
        self.leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        environment = ENVIRONMENT | variables
        del environment["COLUMNS"]
        self.process = subprocess.Popen(
            command(*arguments),
            stdin=follower,
            stdout=follower,
            stderr=follower,
            env=environment,
            start_new_session=True,
        )
        os.close(follower)
        self.screen = ""
        self.shown = Screen(columns)
        self.frames: list[str] = []

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.leader)

    def read(self, until: str | None = None, seconds: float = 60) -> None:
        """Read to the end, or until the screen shows a text."""
        deadline = time.monotonic() + seconds
        while until is None or until not in self.screen:
            left = deadline - time.monotonic()
            assert select.select([self.leader], [], [], max(left, 0))[0], self.screen[-2000:]
            try:
                piece = os.read(self.leader, 65536)
            except OSError:  # the other side is closed
                return
            text = piece.decode("utf-8", "replace")
            self.screen += text
            self.shown.feed(text)
            self.frames.append(self.shown.line)

    def end(self) -> int:
        self.read()
        return self.process.wait(timeout=60)

    @property
    def lines(self) -> list[str]:
        """The text without what moves the cursor and colours it."""
        plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.screen).replace("\r", "\n")
        return [line.strip() for line in plain.splitlines() if line.strip()]

    @property
    def is_clean(self) -> bool:
        """Whether the cursor is shown and the bar is gone."""
        return self.screen.rfind("\x1b[?25h") > self.screen.rfind("\x1b[?25l") >= 0


SLOW_EVALUATION = (
    *("--set", "training.epochs=2"),
    *("--set", "callbacks.weight_average={}"),
    *("--set", "callbacks.flip_average={}"),
    *("--set", "data={name: digits, limit: 100, validation: 0.2, batch_size: 1}"),
    *("--set", "data.eval_batch_size=1"),
)
LIVE_AT_80 = (
    r"epoch [12]/2 [━─]{6,}  +loss +\d+\.\d{4}  +top1 +\d+\.\d\d %  +[\d,]+ img/s  +\d+:\d\d left"
)


def test_a_terminal_gets_a_bar_that_fits_it_and_is_left_clean(config, tmp_path):
    """At 80 columns, while each epoch is evaluated in three ways."""
    arguments = ["--config", config, "--output", tmp_path, "--name", "run", *SLOW_EVALUATION]
    with Terminal(*arguments, columns=80) as terminal:
        assert terminal.end() == 0
    assert any(re.fullmatch(LIVE_AT_80, frame) for frame in terminal.frames)
    for title in ("evaluate", "evaluate average", "evaluate mirrored", "test average"):
        assert any(re.match(rf"{title} [━─]", frame) for frame in terminal.frames), title
    live = [frame for frame in terminal.frames if "━" in frame or "─" in frame]
    assert max(map(len, live)) < 80
    kept = [line for line in terminal.shown.lines if line]
    assert not any("━" in line or "─" in line for line in kept)
    assert [line[:17] for line in kept if line.startswith("epoch")] == [
        "epoch 1/2  train ",
        "epoch 2/2  train ",
    ]
    # A line that is cut at the terminal's edge, as a long path is, may go on with one space.
    indented = [line for line in kept if line.startswith("  ")]
    assert all(re.match(r"( {11}| {6})\S", line) for line in indented)  # below "epoch", "test"
    for what, times in (("eval loss", 2), ("ema_loss", 3), ("flip_loss", 3)):  # and the test
        assert sum(f"  {what}" in line for line in indented) == times
    assert "".join(kept[-3:]).endswith(str(tmp_path / "run"))  # in several lines, if it is long
    assert (terminal.shown.line, terminal.shown.shows_cursor) == ("", True)
    assert terminal.is_clean


def test_ctrl_c_saves_and_leaves_the_terminal_clean(config, tmp_path):
    arguments = ["--config", config, "--output", tmp_path, "--name", "run"]
    with Terminal(*arguments, "--set", "training.epochs=1000") as terminal:
        terminal.read(until="1/1000  train loss")
        os.killpg(terminal.process.pid, signal.SIGINT)
        assert terminal.end() == 130
    assert terminal.lines[-1].endswith(f"go on with: resnet-fit --resume {tmp_path / 'run'}")
    assert "Traceback" not in terminal.screen
    assert terminal.is_clean
    assert (tmp_path / "run" / "checkpoints" / "last" / "model.pdparams").is_file()


@pytest.mark.parametrize(
    ("until", "epochs"),
    [
        pytest.param("evaluate average", 0, id="epoch"),
        pytest.param("test mirrored", 2, id="test"),
    ],
)
@pytest.mark.slow
def test_ctrl_c_in_an_evaluation_saves_and_the_log_tells_all(config, tmp_path, until, epochs):
    arguments = ["--config", config, "--output", tmp_path / "my runs", "--name", "run"]
    run_folder = tmp_path / "my runs" / "run"
    with Terminal(*arguments, *SLOW_EVALUATION, columns=120) as terminal:
        terminal.read(until=until)
        os.killpg(terminal.process.pid, signal.SIGINT)
        assert terminal.end() == 130
    assert terminal.is_clean
    assert not (run_folder / "summary.json").exists()
    go_on = f"stopped and saved; go on with: resnet-fit --resume '{run_folder}'"
    assert "".join(terminal.shown.lines).endswith(f"resnet-fit: {go_on}")
    assert run("--resume", run_folder).returncode == 0
    rows = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    assert all(row["eval"].keys() >= {"top1", "ema_top1", "flip_top1"} for row in rows)
    log = log_lines(run_folder)
    assert log.count(go_on) == 1
    assert sum(line.startswith("set training.epochs=2") for line in log) == 1
    epoch_lines = [line[:9] for line in log if line.startswith("epoch")]
    again = ["epoch 1/2"] if epochs == 0 else []  # trained in one sitting, evaluated in the other
    assert epoch_lines == ["epoch 1/2", *again, "epoch 2/2"]
    assert any(line.startswith("goes on from ") for line in log)
    assert log[-1].endswith(f", all in {run_folder}")


def log_lines(run_folder):
    lines = (run_folder / "run.log").read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ", line) for line in lines)
    return [line[21:] for line in lines]


@pytest.mark.parametrize("delay", [0, 0.2, 0.6])
def test_ctrl_c_before_training_is_one_line(config, tmp_path, delay):
    """While Paddle is being imported there is nothing to save yet."""
    process = subprocess.Popen(
        command("--config", config, "--set", "training.seed=1", "--output", tmp_path / "runs"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT | {"PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "set training.seed=1\n"
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "resnet-fit: interrupted\n"
    assert not (tmp_path / "runs").exists()


def test_an_error_amid_training_leaves_the_terminal_clean(tiny, write_yaml, tmp_path):
    for part in ("train", "val"):
        for kind in ("cat", "dog"):
            (tmp_path / part / kind).mkdir(parents=True)
            for i in range(4):
                Image.new("RGB", (16, 16), (40 * i, 0, 0)).save(tmp_path / part / kind / f"{i}.png")
    broken = tmp_path / "val" / "dog" / "3.png"
    broken.write_bytes(broken.read_bytes()[:40])
    numbers = {"normalize": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    tiny["data"] = {"name": "folder", "path": str(tmp_path), "batch_size": 4, "workers": 1}
    tiny["augmentation"] = {"train": [{"random_resized_crop": {"size": 8}}, numbers]}
    tiny["augmentation"]["eval"] = [{"resize": {"size": 8}}, {"center_crop": {"size": 8}}, numbers]
    with Terminal("--config", write_yaml(tiny), "--output", tmp_path / "runs") as terminal:
        assert terminal.end() == 2
    assert terminal.lines[-1].startswith(f"resnet-fit: {broken}: ")
    assert "Traceback" not in terminal.screen
    assert terminal.is_clean
