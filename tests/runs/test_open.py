"""A run is opened where its data are gone, and says what its own evaluation said."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import paddle
import pytest
from PIL import Image

from resnet_fit import UserError, fit, load_weights, open_run, parse_config, resnet, resume
from resnet_fit.callbacks import WeightAverage
from resnet_fit.data.dataset import ArrayDataset
from resnet_fit.runs.held_out import held_out, trained_on


def accuracy(run, images, labels):
    named = np.array(run.classify(images))
    return float(np.mean(named == np.array(run.classes)[labels]))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three colours, in folders, as photographs of several sizes."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    rng = np.random.default_rng(0)
    for part, count in (("train", 12), ("val", 6)):
        for channel, name in enumerate(("red", "green", "blue")):
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 160, (20 + i, 24, 3), np.uint8)
                pixels[..., channel] += 90
                Image.fromarray(pixels).save(folder / part / name / f"{i}.png")
    return folder


COLOURS = {
    "model": {"depth": [1, 1], "stem": "cifar", "width": 4},
    "data": {"name": "folder", "batch_size": 6, "workers": 0},
    "augmentation": {
        "train": [{"random_resized_crop": {"size": 12}}, "normalize"],
        "eval": [{"resize": {"size": 14}}, {"center_crop": {"size": 12}}, "normalize"],
    },
    "optimizer": {"name": "momentum", "learning_rate": 0.05},
    "training": {"epochs": 3},
    "callbacks": {"visualdl": None},
}


def test_without_its_data_it_classifies_photographs_as_its_evaluation_did(photos, tmp_path):
    data = tmp_path / "photos"
    shutil.copytree(photos, data)
    config = parse_config(COLOURS | {"data": COLOURS["data"] | {"path": str(data)}})
    summary = fit(config, tmp_path, "run").summary
    held_out = sorted((photos / "val").rglob("*.png"))
    labels = [("blue", "green", "red").index(file.parent.name) for file in held_out]
    shutil.rmtree(data)
    for checkpoint in ("best", "last"):
        run = open_run(tmp_path / "run", checkpoint)
        assert run.classes == ("blue", "green", "red")
        told = summary[checkpoint]["eval"]["top1"]
        assert accuracy(run, held_out, labels) == pytest.approx(told, abs=1e-6)
    assert run.classify([str(held_out[0])])[0] in run.classes


def test_a_run_on_arrays_takes_arrays_and_files_of_their_size(tiny, tmp_path):
    tiny["callbacks"] = {"weight_average": {"decay": 0.9}}
    tiny["checkpoint"] = {"monitor": "ema_top1"}
    summary = fit(parse_config(tiny), tmp_path, "run").summary
    _, held_out = parse_config(tiny).data.load()
    averaged, plain = (open_run(tmp_path / "run", average=average) for average in (None, False))
    assert (averaged.is_average, plain.is_average) == (True, False)
    told = summary["best"]["eval"]
    for run, name in ((averaged, "ema_top1"), (plain, "top1")):
        found = accuracy(run, held_out.images, held_out.labels)
        assert found == pytest.approx(told[name], abs=1e-6)
    images = held_out.images
    Image.fromarray(images[0, 0]).save(tmp_path / "0.png")
    assert averaged.classify([tmp_path / "0.png"]) == averaged.classify(images[:1])
    Image.new("L", (9, 8)).save(tmp_path / "wide.png")
    with pytest.raises(UserError, match=r"wide\.png: 9x8 pixels, .* trained on images of 8x8"):
        averaged.classify([tmp_path / "wide.png"])
    with pytest.raises(UserError, match=r"expected .*1, 8, 8"):
        averaged.logits(images[:2, :, :4])


def test_a_network_that_was_given_is_given_again(tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 3, 8, 8), np.uint8), rng.integers(0, 2, 40)
    data = ArrayDataset(images, labels, ("cat", "dog"))
    config = parse_config(
        {
            "model": {"name": "given"},
            "data": {"name": "given", "batch_size": 20},
            "optimizer": {"name": "momentum", "learning_rate": 0.01},
            "training": {"epochs": 1},
        }
    )

    def network():
        return paddle.nn.Sequential(paddle.nn.Flatten(), paddle.nn.Linear(192, 2))

    trained = network()
    fit(config, tmp_path, "run", network=trained, data=(data, data))
    run = open_run(tmp_path / "run", network=network())
    assert np.array_equal(run.network[1].weight.numpy(), trained[1].weight.numpy())
    assert len(run.classify(images)) == 40
    with pytest.raises(UserError, match="a network that a program hands over"):
        open_run(tmp_path / "run")
    with pytest.raises(UserError, match=r"1\.weight"):
        open_run(tmp_path / "run", network=paddle.nn.Sequential(paddle.nn.Linear(192, 2)))


def test_an_average_that_a_program_hands_over_can_be_opened(tiny, tmp_path):
    folder = fit(parse_config(tiny), tmp_path, "run", callbacks=[WeightAverage(decay=0.9)]).folder
    plain, averaged = (open_run(folder, "last", average=average) for average in (None, True))
    assert (plain.is_average, averaged.is_average) == (False, True)
    pairs = zip(plain.network.parameters(), averaged.network.parameters(), strict=True)
    assert any(not np.array_equal(one.numpy(), other.numpy()) for one, other in pairs)
    for file in folder.glob("checkpoints/*last*/average.pdparams"):  # the one before as well
        file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"average\.pdparams is damaged"):
        resume(folder, ["training.epochs=3"], callbacks=[WeightAverage(decay=0.9)])


@pytest.mark.parametrize("sets", [0, 1, 4])
def test_data_are_two_or_three_sets(sets, tmp_path):
    data = ArrayDataset(np.zeros((4, 1, 8, 8), np.uint8), np.arange(4) % 2, ("cat", "dog"))
    config = parse_config(
        {
            "model": {"depth": [1, 1], "stem": "cifar", "width": 4},
            "data": {"name": "given"},
            "optimizer": {"name": "momentum", "learning_rate": 0.01},
            "training": {"epochs": 1},
        }
    )
    for given in ([data] * sets, *([data] if sets == 1 else [])):
        with pytest.raises(UserError, match=rf"^data: received {sets}, expected 2 or 3 data sets"):
            fit(config, tmp_path, data=given)
    assert list(tmp_path.iterdir()) == []


def test_mistakes_are_told_in_one_line(tiny, tmp_path):
    with pytest.raises(UserError, match="not a run's folder"):
        open_run(tmp_path)
    tiny["training"]["epochs"] = 1
    folder = fit(parse_config(tiny), tmp_path, "run").folder
    with pytest.raises(UserError, match=r"no checkpoint 'bset'\. Did you mean 'best'\?"):
        open_run(folder, "bset")
    with pytest.raises(UserError, match=r"trained without callbacks\.weight_average"):
        open_run(folder, average=True)
    weights = Path(folder) / "checkpoints/best/model.pdparams"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"best/model\.pdparams is damaged"):
        open_run(folder)


def test_a_save_that_was_killed_midway_leaves_the_checkpoint_before(tiny, tmp_path):
    """Between its two renames the old folder is hidden, and the new one not yet in its place."""
    tiny["training"]["epochs"] = 1
    run = Path(fit(parse_config(tiny), tmp_path, "run").folder)
    saved = run / "checkpoints"
    for name in ("best", "last"):
        before = saved / f".{name}.previous"
        shutil.rmtree(before, ignore_errors=True)
        (saved / name).rename(before)
        assert open_run(run, name).checkpoint == before
    shutil.copytree(saved / ".last.previous", saved / ".epoch-0002.part")  # not yet whole
    with pytest.raises(UserError, match=r"no checkpoint 'epoch-2'\. There are: best, last$"):
        open_run(run, "epoch-2")
    network = resnet([1, 1], 10, "cifar", width=8, in_channels=1)
    shutil.copytree(saved / ".last.previous", saved / "last")
    for folder in (run, saved):
        file = load_weights(network, folder).file
        assert file == str(saved / ".best.previous/model.pdparams"), "the best one comes first"


def test_it_is_the_network_that_load_weights_gives(tiny, tmp_path):
    folder = fit(parse_config(tiny), tmp_path, "run").folder
    network = resnet([1, 1], 10, "cifar", width=8, in_channels=1)
    load_weights(network, folder)
    network.eval()
    run = open_run(folder, device="cpu")
    images = paddle.rand([5, 1, 8, 8])
    np.testing.assert_allclose(run.network(images), network(images), rtol=1e-4, atol=1e-5)


def test_fine_tuning_starts_from_the_weights_that_a_run_was_judged_by(tiny, tmp_path):
    tiny["callbacks"] = {"weight_average": {"decay": 0.9}, "visualdl": None}
    for monitor, file in (("ema_top1", "average.pdparams"), ("top1", "model.pdparams")):
        tiny["checkpoint"] = {"monitor": monitor}
        folder = fit(parse_config(tiny), tmp_path, monitor).folder
        network = resnet([1, 1], 10, "cifar", width=8, in_channels=1)
        assert load_weights(network, folder).file == str(folder / "checkpoints/best" / file)
        assert open_run(folder).is_average == (file == "average.pdparams")


def test_its_own_held_out_images_and_a_folder_of_others(photos, tmp_path):
    config = parse_config(COLOURS | {"data": COLOURS["data"] | {"path": str(photos)}})
    summary = fit(config, tmp_path, "run").summary
    run = open_run(tmp_path / "run", "last")
    data = held_out(run)
    assert (len(data), len(trained_on(run))) == (18, 36)
    hits = accuracy(run, data.paths, data.labels)
    assert hits == pytest.approx(summary["last"]["eval"]["top1"], abs=1e-6)
    two = tmp_path / "two"
    for name in ("red", "green"):
        shutil.copytree(photos / "val" / name, two / name)
    others = held_out(run, two)
    assert (len(others), others.classes) == (12, run.classes)
    assert sorted({run.classes[i] for i in others.labels}) == ["green", "red"]
    (two / "red").rename(two / "rad")
    with pytest.raises(UserError, match=r"class 'rad' is none of this run's\. Did you mean 'red'"):
        held_out(run, two)
    (tmp_path / "parts" / "train").mkdir(parents=True)
    with pytest.raises(UserError, match="no part that is held out"):
        held_out(run, tmp_path / "parts")


def test_other_images_than_the_runs_are_told(photos, tmp_path):
    data = tmp_path / "photos"
    shutil.copytree(photos, data)
    config = parse_config(COLOURS | {"data": COLOURS["data"] | {"path": str(data)}})
    fit(config, tmp_path, "run")
    (data / "val" / "red" / "0.png").unlink()
    with pytest.warns(UserWarning, match="not the images of this run's training: 17 now, 18 then"):
        assert len(held_out(open_run(tmp_path / "run"))) == 17


def test_images_in_memory_of_a_run_and_in_files(tiny, tmp_path):
    fit(parse_config(tiny), tmp_path, "run")
    run = open_run(tmp_path / "run")
    data = held_out(run)
    for i in (0, 1):
        folder = tmp_path / "digits" / run.classes[data.labels[i]]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(data.images[i, 0]).save(folder / f"{i}.png")
    read = held_out(run, tmp_path / "digits")
    assert sorted(read.labels) == sorted(data.labels[:2])
    assert {image.tobytes() for image in read.images} == {i.tobytes() for i in data.images[:2]}
