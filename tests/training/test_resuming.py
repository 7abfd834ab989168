"""A run that goes on is the run that it was, or is refused in one line before anything is done."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from paddle import nn
from PIL import Image
from stopping import Stop, stop_when

from resnet_fit import fit, parse_config, resume
from resnet_fit.checkpoints.files import CHECKSUMS, CONFIG, DATA
from resnet_fit.cli import main
from resnet_fit.errors import UserError, listed
from resnet_fit.files import digest_of
from resnet_fit.networks.weights import read_weights
from resnet_fit.parts import ArrayDataset, parts
from resnet_fit.runs.resuming import CHANGEABLE

SMALL: dict[str, Any] = {
    "model": {"depth": [1, 1], "stem": "cifar", "width": 4},
    "data": {"name": "folder", "path": "photos", "batch_size": 9, "workers": 0},
    "augmentation": {"train": ["horizontal_flip", "normalize"]},
    "optimizer": {"name": "momentum", "learning_rate": 0.1},
    "training": {"epochs": 2},
    "callbacks": {"visualdl": None},
}


def small(*overrides):
    return parse_config(deepcopy(SMALL), overrides)


def draw(root: Path) -> Path:
    """Folders of 8x8 images, as where a run of `SMALL` begins."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 8), ("val", 2)):
        for label in "abc":
            folder = root / "photos" / part / label
            folder.mkdir(parents=True)
            for i in range(count):
                image = rng.integers(0, 256, (8, 8, 3), np.uint8)
                Image.fromarray(image).save(folder / f"{i}.png")
    return root


def stop_in_epoch_2(name="run", *overrides):
    """A run of `SMALL` that dies with a checkpoint after one of the three steps of epoch 2."""
    with pytest.MonkeyPatch.context() as patch:
        stop_when(patch, lambda checkpoint: checkpoint.clock.step == 4)
        with pytest.raises(Stop):
            fit(small("checkpoint.every_steps=1", *overrides), "runs", name)
    return Path("runs", name)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Images, a run that was stopped and the same run undisturbed."""
    root = draw(tmp_path_factory.mktemp("home"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        fit(small("checkpoint.every_steps=1"), "runs", "whole")
        stop_in_epoch_2()
    return root


@pytest.fixture
def stopped(home, tmp_path, monkeypatch):
    """A copy of the run that was stopped and of its images, which are at another place now."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(home / "runs" / "run", "run")
    shutil.copytree(home / "photos", "photos")
    return tmp_path / "run"


def content(folder):
    return {p: p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def refusal(folder, *overrides):
    """The one line by which a run is not gone on with; nothing in its folder has changed."""
    before = content(folder)
    with pytest.raises(UserError) as caught:
        resume(folder, overrides)
    assert content(folder) == before
    assert len(str(caught.value).splitlines()) == 1, str(caught.value)
    return str(caught.value)


def weights(folder):
    return read_weights(Path(folder) / "checkpoints" / "last" / "model.pdparams")


def assert_same_weights(folder, other):
    ours, theirs = weights(folder), weights(other)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


# --- the data -------------------------------------------------------------------------


def both_parts(change):
    return lambda: [change(Path("photos", part)) for part in ("train", "val")]


CHANGES = {
    "a class renamed": (
        both_parts(lambda part: (part / "a").rename(part / "z")),
        "class 'a' is gone and class 'z' is new",
    ),
    "a class added": (
        both_parts(lambda part: shutil.copytree(part / "a", part / "d")),
        "class 'd' is new",
    ),
    "a class removed": (
        both_parts(lambda part: shutil.rmtree(part / "c")),
        "class 'c' is gone",
    ),
    "an image removed": (
        lambda: os.unlink("photos/train/b/0.png"),
        "class 'b' has 7 training images instead of 8",
    ),
    "an image added": (
        lambda: shutil.copy("photos/train/a/0.png", "photos/val/b/9.png"),
        "class 'b' has 3 evaluation images instead of 2",
    ),
    "another image under an old name": (
        lambda: shutil.copy("photos/train/a/0.png", "photos/train/b/0.png"),
        "training images were changed or replaced under the same names (--set data.compare=names",
    ),
    "an image renamed": (
        lambda: os.rename("photos/val/b/0.png", "photos/val/b/9.png"),
        "evaluation images were renamed or replaced",
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_other_data_are_refused(stopped, what):
    change, words = CHANGES[what]
    change()
    message = refusal(stopped, "data.path=photos")
    assert message.startswith(f"{Path('photos').absolute()}: not the data this run was trained on")
    assert words in message


def test_other_data_are_refused_before_the_cache_is_filled(stopped, home, monkeypatch):
    monkeypatch.chdir(home)
    size = "[{resize: {size: 8}}, {center_crop: {size: 8}}, normalize]"
    cached = stop_in_epoch_2(
        "cached", "data.cache={shorter_side: 8, path: cache}", f"augmentation.eval={size}"
    ).absolute()
    monkeypatch.chdir(stopped.parent)
    os.unlink("photos/train/b/0.png")
    refusal(cached, "data.path=photos", "data.cache.path=elsewhere")
    assert not Path("elsewhere").exists()


def test_images_of_the_same_names_are_taken_where_that_is_asked_for(stopped):
    """As for one that could not be read, and was replaced by a good copy."""
    shutil.copy("photos/train/a/0.png", "photos/train/b/0.png")
    refusal(stopped, "data.path=photos")
    resume(stopped, ["data.path=photos", "data.compare=names", "training.epochs=3"])
    resume(stopped, ["data.compare=content", "training.epochs=4"])  # what is known by now
    shutil.copy("photos/train/a/1.png", "photos/train/b/0.png")
    assert "training images were changed" in refusal(stopped, "training.epochs=5")


def test_other_arrays_are_refused(tmp_path, monkeypatch):
    from resnet_fit.data.datasets import digits as digits_module

    digits = {"name": "digits", "limit": 100, "batch_size": 50}
    config = parse_config(deepcopy(SMALL) | {"data": digits}, ["training.epochs=1"])
    folder = fit(config, tmp_path, "run").folder
    train, test = digits_module.digits()
    train.images[:, 0, 3, 3] ^= 1
    monkeypatch.setattr(digits_module, "digits", lambda: (train, test))
    assert refusal(folder, "training.epochs=2").startswith(
        "digits: not the data this run was trained on: training images were changed"
    )


@pytest.mark.parametrize("kind", [list, np.array])
def test_class_names_may_be_a_list_or_an_array(kind, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, [12, 1, 8, 8], np.uint8)
    data = (ArrayDataset(images, [0, 1, 2] * 4, kind(["a", "b", "c"])),) * 2
    config = deepcopy(SMALL) | {"data": {"name": "given", "batch_size": 6}}
    folder = fit(parse_config(config, ["training.epochs=1"]), tmp_path, "run", data=data).folder
    assert resume(folder, ["training.epochs=2"], data=data).summary["epochs"] == 2
    assert json.loads((folder / DATA).read_text())["contents"]["classes"] == ["a", "b", "c"]


def test_the_same_data_elsewhere_are_taken(stopped, home):
    """Copied, so that no time of change is what it was; the run's folder has moved as well."""
    os.rename(home / "photos", home / "away")
    try:
        assert "no such file or folder" in refusal(stopped)
        resume(stopped, ["data.path=photos"])
    finally:
        os.rename(home / "away", home / "photos")
    assert_same_weights(stopped, home / "runs" / "whole")
    for folder in (stopped, stopped / "checkpoints" / "last"):
        assert f"path: {Path('photos').absolute()}" in (folder / CONFIG).read_text()


def test_a_run_keeps_what_it_is_trained_on(home):
    run = home / "runs" / "run"
    for name in (DATA, CONFIG):
        in_checkpoint = run / "checkpoints" / "last" / name
        assert in_checkpoint.read_bytes() == (run / name).read_bytes()
        sums = json.loads((in_checkpoint.parent / CHECKSUMS).read_text())
        assert sums[name] == digest_of(in_checkpoint, "sha256")
    record = json.loads((run / DATA).read_text())
    assert record["contents"]["classes"] == ["a", "b", "c"]
    assert record["image_shape"] == [3, 8, 8]


# --- where it is ----------------------------------------------------------------------


def test_it_goes_on_from_any_working_directory(stopped, home, monkeypatch):
    """The path of its data was relative to where it began."""
    (home / "elsewhere").mkdir(exist_ok=True)
    monkeypatch.chdir(home / "elsewhere")
    resume(os.path.relpath(stopped))
    assert_same_weights(stopped, home / "runs" / "whole")


def test_the_first_weights_are_not_needed_again(home, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(home)
    best = Path("runs", "whole", "checkpoints", "best", "model.pdparams")
    shutil.copy(best, "first.pdparams")
    run = stop_in_epoch_2("from-weights", "model.weights=first.pdparams")
    assert f"starts from {home / 'first.pdparams'}" in capsys.readouterr().out
    whole = fit(small("model.weights=first.pdparams"), "runs", "whole-from-weights").folder
    os.unlink("first.pdparams")
    resume(run)
    assert_same_weights(run, whole)


def test_a_run_can_start_from_another_ones_folder(home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    fit(small("model.weights=runs/whole", "training.epochs=1"), "runs", "second")
    best = home / "runs" / "whole" / "checkpoints" / "best" / "model.pdparams"
    assert f"starts from {best}" in capsys.readouterr().out.splitlines()


# --- the config -----------------------------------------------------------------------

EDITS = {
    "another rate": ("rate: 0.1", "rate: 0.2", "optimizer.learning_rate: received 0.2"),
    "another depth": ("[1, 1]", "[1, 2]", "model.depth.1: received 2"),
    "another width": ("width: 4", "width: 8", "model.width: received 8"),
    "averages": (
        "visualdl: null", "weight_average: {}", "callbacks.weight_average: received {'decay'"
    ),
    "another seed": (", seed: 0", ", seed: 1", "training.seed: received 1"),
    "early stopping": (
        "visualdl: null", "early_stopping: {patience: 1}", "callbacks.early_stopping: received"
    ),
    "steps without NaN": ("on_nan: stop", "on_nan: skip", "training.on_nan: received 'skip'"),
    "another augmentation": ("horizontal_flip", "vertical_flip", "augmentation.train.0"),
    "an unknown key": ("width: 4", "widht: 4", "Did you mean 'width'?"),
    "no YAML": ("model:", "model: {", "not valid YAML"),
    "nothing": (None, "", "received nothing"),
}  # fmt: skip


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_config_is_refused_with_its_line(stopped, edit):
    old, new, words = EDITS[edit]
    file = stopped / CONFIG
    text = file.read_text()
    assert old is None or old in text
    file.write_text(new if old is None else text.replace(old, new))
    message = refusal(stopped)
    assert message.startswith(f"{file}:")
    assert words in message


def test_several_edits_are_told_in_one_line_each(stopped):
    file = stopped / CONFIG
    text = file.read_text().replace("width: 4", "width: 8")
    file.write_text(text.replace(", seed: 0", ", seed: 1"))
    with pytest.raises(UserError) as caught:
        resume(stopped)
    first, second = str(caught.value).splitlines()
    assert first.endswith("model.width: received 8, expected 4, as this run was trained")
    assert "training.seed: received 1, expected 0, as this run was trained; " in second
    assert second.endswith(f"a run that goes on may change {listed(CHANGEABLE)}")


def test_a_setting_that_may_change_may_be_edited(stopped):
    file = stopped / CONFIG
    file.write_text(file.read_text().replace("epochs: 2", "epochs: 3"))
    assert resume(stopped).summary["epochs"] == 3


def test_an_override_is_refused_where_it_changes_the_run(stopped, capsys):
    assert main(["--resume", str(stopped), "--set", "model.depth=18"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("resnet-fit: --set model.depth: received 18, expected [1, 1], as this ")
    assert "--set optimizer.name: received 'sgd'" in refusal(
        stopped, "optimizer.name=sgd", "optimizer.learning_rate=1"
    )
    resume(stopped, ["optimizer.learning_rate=0.1"])  # as it is


def test_what_is_no_run_is_refused(stopped, tmp_path):
    assert "data.cache.shorter_side: required" in refusal(stopped, "data.cache.path=x")
    assert "not a run's folder: there is no config.yaml in it" in refusal(tmp_path)
    shutil.rmtree(stopped / "checkpoints")
    assert "no checkpoint is there; a run that ended before it" in refusal(stopped)


WHAT_MAY_CHANGE = {
    "training.epochs": "3",
    "training.device": "cpu",
    "training.backend": "paddle",
    "training.compile": "static",
    "data.path": "photos",
    "data.compare": "names",
    "data.workers": "1",
    "data.cache.path": "elsewhere",
    "checkpoint.every_minutes": "1",
    "checkpoint.every_steps": "2",
    "checkpoint.keep": "1",
    "callbacks.visualdl": "{}",
    "callbacks.visualdl.every_steps": "1",
    "callbacks.visualdl.images": "false",
    "callbacks.visualdl.histograms": "false",
    "callbacks.visualdl.graph": "true",
    "callbacks.adapt_threads": "{}",
    "callbacks.adapt_threads.every": "0.1",
}


def test_all_that_may_change_does(home, tmp_path, monkeypatch):
    assert tuple(WHAT_MAY_CHANGE) == CHANGEABLE
    monkeypatch.chdir(home)
    size = "[{resize: {size: 8}}, {center_crop: {size: 8}}, normalize]"
    cache = ("data.cache={shorter_side: 8, path: cache}", f"augmentation.eval={size}")
    run = stop_in_epoch_2("changes", *cache).absolute()
    shutil.copytree("photos", tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    resume(run, [f"{key}={value}" for key, value in WHAT_MAY_CHANGE.items()])
    assert len(rows_of(run)) == 3
    assert list(Path("elsewhere").iterdir())
    assert (run / "checkpoints" / "epoch-0003").exists()


def rows_of(run):
    return (run / "metrics.jsonl").read_text().splitlines()


def test_curves_may_be_wanted_later_and_no_longer(stopped):
    resume(stopped, ["callbacks.visualdl=true", "training.epochs=3"])
    assert list((stopped / "visualdl").iterdir())
    resume(stopped, ["callbacks.visualdl=null", "training.epochs=4"])


def test_a_config_exchanged_in_the_checkpoint_is_damage(stopped):
    """Then the checkpoint before counts."""
    last = stopped / "checkpoints" / "last"
    shutil.copy(last / CONFIG, stopped / "copy.yaml")
    for name in (CONFIG, DATA):
        (last / name).write_text((last / name).read_text() + " ")
    run = resume(stopped)
    assert run.summary["epochs"] == 2


def test_a_checkpoint_of_another_version_is_refused(stopped):
    checkpoints = stopped / "checkpoints"
    for name in ("last", ".last.previous"):
        sums = json.loads((checkpoints / name / CHECKSUMS).read_text())
        del sums[CONFIG]
        (checkpoints / name / CHECKSUMS).write_text(json.dumps(sums))
        (checkpoints / name / CONFIG).unlink()
    assert refusal(stopped) == (
        f"{checkpoints / 'last'}: no whole checkpoint (last was saved without config.yaml; "
        ".last.previous was saved without config.yaml)"
    )


# --- the network ----------------------------------------------------------------------


def of_classes(count):
    paddle.seed(0)
    return nn.Sequential(
        nn.Conv2D(1, 3, 3), nn.BatchNorm2D(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, count)
    )


@pytest.mark.parametrize("name", parts("optimizer"))
def test_every_optimizer_goes_on_exactly_and_not_with_other_classes(name, tmp_path):
    """As one that never stopped; a network of another number of classes is refused in one line."""
    fields = parts("optimizer")[name].model_fields
    required = {key: 0.1 for key, field in fields.items() if field.is_required()}
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, [12, 1, 4, 4], np.uint8), [0, 1, 2] * 4
    data = (ArrayDataset(images, labels, ("a", "b", "c")),) * 2
    config = deepcopy(SMALL) | {
        "model": {"name": "given"},
        "data": {"name": "given", "batch_size": 4},
        "augmentation": {"train": ["normalize"]},
        "optimizer": {"name": name, **required},
    }

    def trained(run, epochs):
        config["training"] = {"epochs": epochs}
        return fit(parse_config(config), tmp_path, run, network=of_classes(3), data=data).folder

    whole, run = trained("whole", 2), trained("run", 1)
    before = content(run)
    with pytest.raises(UserError) as caught:
        resume(run, ["training.epochs=2"], network=of_classes(4), data=data)
    (line,) = str(caught.value).splitlines()
    assert "does not fit this network: 2 of another shape (4.weight 12x3 for 12x4" in line
    assert content(run) == before
    resume(run, ["training.epochs=2"], network=of_classes(3), data=data)
    assert_same_weights(run, whole)


# --- callbacks ------------------------------------------------------------------------


class Counting(paddle.callbacks.Callback):
    """As many write it: the best value begins at infinity."""

    def __init__(self):
        super().__init__()
        self.best, self.batches = float("inf"), 0

    def on_train_batch_end(self, step, logs=None):
        self.batches += 1

    def state_dict(self):
        return {"best": self.best, "batches": self.batches}

    def set_state_dict(self, state):
        self.best, self.batches = state["best"], state["batches"]


def test_a_state_may_be_infinite_and_a_callback_is_not_forgotten(home, monkeypatch):
    monkeypatch.chdir(home)
    folder = fit(small(), "runs", "counted", callbacks=[Counting()]).folder
    before = content(folder)
    with pytest.raises(UserError, match="callbacks: this run was trained with Counting; give"):
        resume(folder, ["training.epochs=3"])
    assert content(folder) == before
    counting = Counting()
    resume(folder, ["training.epochs=3"], callbacks=[counting])
    assert (counting.best, counting.batches) == (float("inf"), 9)


@pytest.mark.parametrize("name", ["loader", "history", "clock", "metrics", "scaler"])
def test_names_that_the_run_uses_itself_are_refused(home, monkeypatch, name):
    monkeypatch.chdir(home)
    own = type(name, (Counting,), {})()
    with pytest.raises(UserError, match=f"callbacks: {name} is a name of the run's own"):
        fit(small(), "runs", "named", callbacks=[own])
    assert not Path("runs/named").exists()


def test_a_callback_that_the_config_has_as_well_is_refused(home, monkeypatch):
    monkeypatch.chdir(home)
    own = type("weight_average", (Counting,), {})()
    with pytest.raises(UserError, match="weight_average is turned on in the config and handed"):
        fit(small("callbacks.weight_average={}"), "runs", "twice", callbacks=[own])


# --- its length -----------------------------------------------------------------------


def warnings_of(folder, *overrides):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        resume(folder, overrides)
    return [str(w.message) for w in caught if "at once" in str(w.message)]


def test_no_fewer_epochs_than_have_begun(stopped):
    expected = "training.epochs: received 1, expected 2 or more, which this run has begun"
    assert refusal(stopped, "training.epochs=1") == expected
    resume(stopped)
    assert refusal(stopped, "training.epochs=1") == expected


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ("{name: cosine}", "the learning rate of cosine goes from 0.025 to 0.05868 at once"),
        ("{name: one_cycle, peak: 0.5}", "of one_cycle goes from 0.075 to 0.09711 at once"),
        ("{name: constant}", None),
        ("{name: step, every_epochs: 1}", None),
        ("{name: multi_step, at_epochs: [1], warmup_epochs: 1}", None),
    ],
)
def test_a_rate_that_jumps_is_told(home, monkeypatch, schedule, words):
    monkeypatch.chdir(home)
    name = schedule.partition(": ")[2].partition(",")[0].strip("}")
    run = stop_in_epoch_2(name, f"schedule={schedule}")
    said = warnings_of(run, "training.epochs=3")
    if words is None:
        assert said == []
        return
    (line,) = said
    assert line.startswith("training.epochs 3 instead of 2: ")
    assert line.endswith(words)


def test_the_first_step_has_the_new_rate(stopped, home, monkeypatch):
    """Extended after an epoch, a run has the rates of one that was begun so long."""
    monkeypatch.chdir(home)
    cosine = "schedule={name: cosine}"
    longer = fit(small(cosine, "training.epochs=3"), "runs", "longer")
    run = fit(small(cosine), "runs", "short")
    with pytest.warns(UserWarning, match=r"goes from 0 to 0\.025 at once"):
        resumed = resume(run.folder, ["training.epochs=3"])
    rates = [run.summary["last"]["learning_rate"] for run in (resumed, longer)]
    assert rates[0] == rates[1]


def test_images_whose_size_jumps_are_told(home, monkeypatch):
    monkeypatch.chdir(home)
    sizes = "augmentation.progressive={start: 4, until: 1.0, step: 1}"
    run = stop_in_epoch_2("progressive", sizes)
    assert warnings_of(run, "training.epochs=4") == [
        "training.epochs 4 instead of 2: images go from 6 to 5 pixels a side at once"
    ]
