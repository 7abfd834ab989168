"""Several processes train a network as one does: equal to the last bit, killed or not."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from launching import CONFIG, PATIENCE, PHOTOS, children, command, contents, different, run, start
from PIL import Image

from resnet_fit.networks.weights import read_tensors

WEIGHTS = "checkpoints/last/model.pdparams"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    from resnet_fit.config.document import dump

    folder = tmp_path_factory.mktemp("processes")
    (folder / "config.yaml").write_text(dump(CONFIG))
    return folder


def trained(place, name, *arguments):
    """The folder of a run that the command line trains by the config."""
    run(command("--config", "config.yaml", "--name", name, *arguments), place)
    return place / "runs" / name


@pytest.fixture(scope="module")
def alone(place):
    """What one process comes to."""
    return contents(trained(place, "alone"))


def test_two_processes_come_to_what_one_does_to_the_last_bit(place, alone):
    two = trained(place, "two", "--processes", 2)
    assert different(contents(two), alone) == []
    environment = json.loads((two / "environment.json").read_text())
    assert environment["processes"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_killed_in_one_process_it_names_it_and_goes_on_with_one_or_two(place, alone, killed):
    name = f"killed-{killed}"
    process = start(command("--config", "config.yaml", "--name", name, "--processes", 2), place)
    last = place / "runs" / name / "checkpoints" / "last"
    while not last.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    time.sleep(random.Random(killed).uniform(0, 1))
    os.kill(children(process.pid)[killed], signal.SIGKILL)
    begun = time.monotonic()
    _, err = process.communicate(timeout=PATIENCE)
    assert time.monotonic() - begun < 15
    assert process.returncode == 1
    assert f"process {killed} was ended by SIGKILL" in err
    more = ["--processes", "2"] if killed else []
    run(command("--resume", f"runs/{name}", *more), place)
    assert different(contents(place / "runs" / name), alone) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.slow
def test_a_signal_ends_all_and_is_saved(place, alone, number, code):
    name = f"stopped-{code}"
    process = start(command("--config", "config.yaml", "--name", name, "--processes", 2), place)
    last = place / "runs" / name / "checkpoints" / "last"
    while not last.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(number)
    begun = time.monotonic()
    _, err = process.communicate(timeout=PATIENCE)
    assert time.monotonic() - begun < 30
    assert process.returncode == code, err
    assert "stopped and saved" in err
    run(command("--resume", f"runs/{name}"), place)
    assert different(contents(place / "runs" / name), alone) == []


@pytest.mark.slow
def test_paddles_launcher_comes_to_the_same(place, alone):
    launcher = ["-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", "logs"]
    (place / "train.py").write_text("from resnet_fit import cli\nraise SystemExit(cli.main())\n")
    run([sys.executable, *launcher, "train.py", "--config", "config.yaml", "--name", "l"], place)
    assert different(contents(place / "runs" / "l"), alone) == []


FOUR_BATCHES = [
    "--set=optimizer={name: momentum, learning_rate: 0.05}",
    "--set=training.accumulate=4",
    "--set=training.epochs=1",
    "--set=schedule.warmup_epochs=0",
    "--set=data.repeats=1",
    "--set=data.batch_size=36",
    "--set=augmentation.progressive=null",
    "--set=callbacks.flip_average=null",
]


@pytest.fixture(scope="module")
def four_batches(place):
    """The weights that one process comes to by steps of four batches."""
    return read_tensors(trained(place, "four-one", *FOUR_BATCHES) / WEIGHTS)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_more_batches_a_step_differ_by_rounding_alone(place, four_batches, processes):
    """Ten steps of four batches, whose gradients are added in another order."""
    folder = trained(place, f"four-{processes}", *FOUR_BATCHES, "--processes", processes)
    several = read_tensors(folder / WEIGHTS)
    apart = [np.abs(value - several[key]).max() for key, value in four_batches.items()]
    assert max(map(float, apart)) < 1e-6


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for part, count in (("train", 13), ("val", 5)):
        for channel, name in enumerate(("red", "green", "blue")):
            (tmp_path / "photos" / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 160, (20 + i, 24, 3), np.uint8)
                pixels[..., channel] += 90
                Image.fromarray(pixels).save(tmp_path / "photos" / part / name / f"{i}.png")
    return tmp_path / "photos"


@pytest.mark.slow
def test_image_files_and_an_odd_number_of_batches(photos, write_yaml, tmp_path):
    config = write_yaml(PHOTOS)
    run(command("--config", config, "--name", "one"), tmp_path)
    run(command("--config", config, "--name", "two", "--processes", 2), tmp_path)
    one, two = (contents(tmp_path / "runs" / name) for name in ("one", "two"))
    assert different(one, two) == []
    assert one["epoch 2"]["step"] == 14  # 7 batches an epoch, dealt two at a time


@pytest.mark.slow
def test_what_one_process_finds_is_told_with_its_number(photos, write_yaml, tmp_path):
    for file in sorted(photos.glob("train/*/*.png"))[::2]:
        file.write_bytes(file.read_bytes()[:200])
    config = write_yaml(PHOTOS | {"data": PHOTOS["data"] | {"compare": "names"}})
    err = run(command("--config", config, "--name", "bad", "--processes", 2), tmp_path, code=2)
    assert "png" in err
    assert "Traceback" not in err


def test_a_number_that_does_not_divide_is_refused_with_the_ways_out(place):
    err = run(command("--config", "config.yaml", "--processes", 3), place, code=2)
    assert "received 2, expected a multiple of the 3 processes" in err
    one = ["--set=training.accumulate=1", "--set=data.batch_size=64", "--processes", "2"]
    err = run(command("--config", "config.yaml", *one), place, code=2)
    assert "training.accumulate=2 data.batch_size=32" in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "told"),
    [("training.on_nan=skip", "on_nan"), ("callbacks.adapt_threads={}", "adapt_threads")],
)
def test_what_works_in_one_process_alone_is_refused(place, change, told):
    arguments = ("--config", "config.yaml", f"--set={change}", "--processes", 2)
    err = run(command(*arguments), place, code=2)
    assert told in err.splitlines()[-1]


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What VisualDL shows of a run, but for times."""
    from visualdl import LogReader

    found = {}
    for file in sorted((folder / "visualdl").rglob("vdlrecords*")):
        reader = LogReader(file_path=str(file))
        for tag in reader.get_tags().get("scalar", []):
            if tag.startswith(("epoch/", "step/")) and "second" not in tag:
                points = reader.get_data("scalar", tag)
                found[f"{file.parent.name} {tag}"] = [(p.id, p.value) for p in points]
    return found


@pytest.mark.slow
def test_curves_of_processes_that_take_several_batches_a_step(place):
    """Points are of the same images as those of one process, whose sums are in another order."""
    shown = "--set=callbacks.visualdl={every_steps: 8}"
    settings = ["--set=training.accumulate=4", "--set=training.epochs=2", shown]
    for name, more in (("v1", []), ("v2", ["--processes", "2"])):
        run(command("--config", "config.yaml", "--name", name, *settings, *more), place)
    one, two = (curves(place / "runs" / name) for name in ("v1", "v2"))
    assert one.keys() == two.keys()
    # Two epochs of 29 batches: points after 8, 16, 24 and 29 of them.
    assert len(one["train step/learning_rate"]) == 8
    assert len(one["eval epoch/top1"]) == 2
    for tag, points in one.items():
        assert [step for step, _ in points] == [step for step, _ in two[tag]], tag
        values = [value for _, value in two[tag]]
        assert [value for _, value in points] == pytest.approx(values, rel=1e-3), tag


@pytest.mark.slow
def test_curves_of_a_killed_run_are_those_of_one_process(place):
    shown = ["--config", "config.yaml", "--set=callbacks.visualdl={}"]
    run(command(*shown, "--name", "curves-one"), place)
    process = start(command(*shown, "--name", "curves", "--processes", 2), place)
    last = place / "runs" / "curves" / "checkpoints" / "last"
    while not last.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    time.sleep(0.7)
    os.kill(children(process.pid)[1], signal.SIGKILL)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    run(command("--resume", "runs/curves", "--processes", 2), place)
    one, several = (curves(place / "runs" / name) for name in ("curves-one", "curves"))
    assert several == one
    assert len(one["eval epoch/top1"]) == 3


# The command line on a CPU that passes for a GPU: the loss is scaled, and by so much that the first
# steps overflow.
OVERFLOWING = f"""
import sys
from resnet_fit.runtime import prepare_environment
prepare_environment()
sys.path.insert(0, {str(REPOSITORY / "tests")!r})
from pytest import MonkeyPatch
from pretended import let_precision_pass
from resnet_fit import cli
from resnet_fit.runs import experiment

class Large(experiment.LossScaler):
    def __init__(self):
        super().__init__(init_loss_scaling=3e38)

let_precision_pass(MonkeyPatch())
experiment.LossScaler = Large
raise SystemExit(cli.main())
"""


@pytest.mark.slow
def test_float16_adds_up_before_it_looks_for_overflow(place):
    program = place / "overflowing.py"
    program.write_text(OVERFLOWING)
    words = [sys.executable, str(program), "--config", "config.yaml"]
    words += ["--set=training.precision=float16", "--set=training.backend=paddle"]
    run([*words, "--name", "float16-one"], place)
    run([*words, "--name", "float16-two", "--processes", "2"], place)
    one, two = (contents(place / "runs" / f"float16-{name}") for name in ("one", "two"))
    assert different(one, two) == []
    states = [
        json.loads((place / "runs" / f"float16-{name}/checkpoints/last/state.json").read_text())
        for name in ("one", "two")
    ]
    assert states[0]["scaler"] == states[1]["scaler"]
    assert states[0]["scaler"]["scale"][0] < 3e38  # there were overflows


# The rate is too small to move a weight, so that what is judged is the same.
STILL = [
    "--set=data.limit=101",
    "--set=data.batch_size=10",
    "--set=data.eval_batch_size=13",
    "--set=optimizer={name: sgd, learning_rate: 1.0e-30}",
    "--set=schedule={name: constant}",
    "--set=training={epochs: 1, accumulate: 6}",
]


@pytest.fixture(scope="module")
def evaluation(place):
    """What one process makes of 101 images."""
    return contents(trained(place, "still-one", *STILL))["epoch 1"]["eval"]


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.slow
def test_an_evaluation_of_101_images_is_that_of_one_process(place, evaluation, processes):
    folder = trained(place, f"still-{processes}", *STILL, "--processes", processes)
    assert contents(folder)["epoch 1"]["eval"] == evaluation
    assert {"top1", "ema_top1", "flip_top1"} < evaluation.keys()


@pytest.mark.skipif("RESNET_FIT_DATA" not in os.environ, reason="needs CIFAR-10")
@pytest.mark.slow
def test_resnet20_on_cifar_to_the_last_bit(place):
    changed = [
        "--config",
        "config.yaml",
        "--set=model={depth: 20, stem: cifar3, stochastic_depth: 0.2}",
        "--set=data={name: cifar10, limit: 500, batch_size: 36, repeats: 2}",
        "--set=augmentation.progressive={start: 24}",
        "--set=augmentation.train=[{random_crop: {padding: 4}}, horizontal_flip, normalize]",
        "--set=training.epochs=2",
    ]
    run(command(*changed, "--name", "cifar-one"), place)
    run(command(*changed, "--name", "cifar-two", "--processes", 2), place)
    one, two = (contents(place / "runs" / f"cifar-{name}") for name in ("one", "two"))
    assert different(one, two) == []


def test_each_process_takes_a_gpu_of_its_own(monkeypatch):
    import paddle

    from resnet_fit import parallel
    from resnet_fit.runs.launch import _addresses
    from resnet_fit.runtime import choose_device

    chosen = []
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: True)
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(paddle, "set_device", chosen.append)
    for rank, variables in _addresses(4):
        monkeypatch.setattr(parallel, "size", lambda: 4)
        monkeypatch.setenv("FLAGS_selected_gpus", variables["FLAGS_selected_gpus"])
        assert choose_device("auto") == f"gpu:{rank}"
    assert chosen == ["gpu:0", "gpu:1", "gpu:2", "gpu:3"]


# Each takes away one thing that processes do for one another.
CONTROLS = {
    "running statistics": """
from resnet_fit.training.reduction import RunningStatistics
def own(self):
    for buffer, piece in zip(self._buffers, self._running.split(self._sizes)):
        buffer.set_value(piece)
    self._running = None
RunningStatistics.follow = own
""",
    "a batch that does not count": """
from resnet_fit.data.dealing import Dealer
Dealer.counts = True
""",
    "the learning rate's batch": """
from resnet_fit.callbacks.together import GroupSchedule
GroupSchedule.on_train_batch_begin = lambda self, step, logs=None: None
""",
    "the seed's batch": """
from resnet_fit.callbacks.clock import Clock
Clock.batch = property(lambda self: self.step + 1)
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("control", CONTROLS)
def test_a_part_that_is_missing_is_seen(place, alone, control):
    name = control.replace(" ", "-").replace("'", "")
    program = place / f"{name}.py"
    program.write_text(
        f"{CONTROLS[control]}\nfrom resnet_fit import cli\nraise SystemExit(cli.main())\n"
    )
    words = [sys.executable, str(program), "--config", "config.yaml", "--processes", "2"]
    run([*words, "--name", name], place)
    assert different(contents(place / "runs" / name), alone)
