"""`weights: imagenet` takes paddle.vision's files: fetched once, verified, or put there by hand."""

from __future__ import annotations

import hashlib
import socket

import numpy as np
import paddle
import pytest
from paddle.vision.models import densenet as paddles_densenet
from paddle.vision.models import resnet as paddles_resnet

from resnet_fit import UserError, densenet, fit, load_config, open_run, parse_config, plain, resnet
from resnet_fit.cli import main
from resnet_fit.networks.families import densenet as dense_settings
from resnet_fit.networks.families import resnet as settings
from resnet_fit.networks.pretrained import imagenet_weights, weights_file
from resnet_fit.runs.fit import resume

CACHE = ".cache/paddle/hapi/weights"
pytestmark = pytest.mark.filterwarnings("ignore:stem='imagenet' shrinks")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home of its own that has no weights yet."""
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A file as paddle.vision publishes them: of its ResNet-18 for 1000 classes."""
    file = tmp_path_factory.mktemp("published") / "resnet18.pdparams"
    network = paddle.vision.models.resnet18()
    paddle.save(network.state_dict(), str(file))
    return file.read_bytes(), network


def publish(monkeypatch, web_server, content, name="resnet18"):
    (web_server.folder / f"{name}.pdparams").write_bytes(content)
    entry = (f"{web_server.url}/{name}.pdparams", hashlib.md5(content).hexdigest())
    monkeypatch.setitem(paddles_resnet.model_urls, name, entry)


def test_fetched_once_and_the_same_network(web_server, tmp_path, monkeypatch, published, capsys):
    content, theirs = published
    publish(monkeypatch, web_server, content)
    ours = resnet(18, weights="imagenet")
    images = paddle.to_tensor(np.random.default_rng(0).normal(size=(2, 3, 64, 64)), "float32")
    theirs.eval(), ours.eval()
    np.testing.assert_allclose(ours(images), theirs(images), rtol=1e-4, atol=1e-4)
    cache = tmp_path / "home" / CACHE
    assert [p.name for p in cache.iterdir()] == ["resnet18.pdparams"]
    assert (cache / "resnet18.pdparams").read_bytes() == content
    with pytest.warns(UserWarning, match="made for 1000 classes: its last layer is not loaded"):
        fewer = resnet([2, 2, 2, 2], 4, weights="imagenet")
    assert np.array_equal(fewer.conv1.weight, ours.conv1.weight)
    assert web_server.asked == ["/resnet18.pdparams"]
    assert capsys.readouterr() == ("", "")


def test_a_file_put_there_by_hand_needs_no_network(web_server, tmp_path, monkeypatch):
    publish(monkeypatch, web_server, b"weights")
    cache = tmp_path / "home" / CACHE
    cache.mkdir(parents=True)
    (cache / "resnet18.pdparams").write_bytes(b"weights")
    assert imagenet_weights("resnet18") == cache / "resnet18.pdparams"
    (cache / "resnet18.pdparams").write_bytes(b"other")
    message = (
        rf"{cache}/resnet18\.pdparams: damaged, or another file .* put {web_server.url}/resnet18"
    )
    with pytest.raises(UserError, match=message):
        imagenet_weights("resnet18")
    assert (cache / "resnet18.pdparams").read_bytes() == b"other"
    assert web_server.asked == []


def test_a_corrupted_or_cut_download_leaves_nothing(web_server, tmp_path, monkeypatch):
    publish(monkeypatch, web_server, b"weights")
    for content in (b"weightz", b"", b"weig"):
        (web_server.folder / "resnet18.pdparams").write_bytes(content)
        with pytest.raises(UserError, match=r"md5 [0-9a-f]{32}, expected [0-9a-f]{32}"):
            imagenet_weights("resnet18")
        assert list((tmp_path / "home" / CACHE).iterdir()) == []
    (web_server.folder / "resnet18.pdparams").unlink()
    with pytest.raises(UserError, match=r"could not be downloaded .*HTTP Error 404"):
        imagenet_weights("resnet18")


def test_offline_says_which_file_goes_where(web_server, tmp_path, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/r/resnet18.pdparams"
        monkeypatch.setitem(paddles_resnet.model_urls, "resnet18", (url, "0" * 32))
        with pytest.raises(UserError) as caught:
            resnet(18, weights="imagenet")
    message = str(caught.value)
    assert f"is not on this machine and could not be downloaded ({url}: " in message
    assert len(message.splitlines()) == 1
    assert message.endswith(f"put {url} at {tmp_path}/home/{CACHE}/resnet18.pdparams")
    monkeypatch.delitem(paddles_resnet.model_urls, "resnet18")
    with pytest.raises(UserError, match="this version of Paddle has none for resnet18"):
        resnet(18, weights="imagenet")


def test_every_network_that_is_published_has_its_own_name():
    """And the list is paddle.vision's own."""
    asked = {
        settings.ResNet.of(
            weights="imagenet", depth=depth, groups=groups, width_per_group=width
        ).imagenet_name()
        for depth, groups, width in settings.PUBLISHED.values()
    }
    assert asked == set(paddles_resnet.model_urls)
    asked = {
        dense_settings.DenseNet.of(weights="imagenet", depth=depth).imagenet_name()
        for depth in dense_settings.BLOCKS
    }
    assert asked == set(paddles_densenet.model_urls)
    by_sizes = dense_settings.DenseNet.of(weights="imagenet", depth=[6, 12, 36, 24], growth=48)
    assert by_sizes.imagenet_name() == "densenet161"


REFUSED = [
    ({"depth": 18, "stem": "cifar"}, "stem: received cifar, expected imagenet"),
    ({"depth": 20, "stem": "cifar3"}, "stem: received cifar3, expected imagenet"),
    ({"depth": 18, "shortcut": "none"}, "shortcut: received none, expected projection"),
    ({"depth": 50, "stride_on": "1x1"}, "stride_on: received 1x1, expected 3x3"),
    (
        {"depth": 18, "width": 32},
        "width: received [32, 64, 128, 256], expected [64, 128, 256, 512]",
    ),
    ({"depth": [1, 1, 1, 1]}, "depth: received [1, 1, 1, 1], expected 18, 34, 50, 101 or 152"),
    ({"depth": 50, "groups": 8}, "groups: received 8 with width_per_group 64, expected those of"),
    ({"name": "densenet", "depth": 40, "stem": "cifar"}, "stem: received cifar"),
    ({"name": "densenet", "depth": [2, 2]}, "depth: received [2, 2], expected 121"),
    ({"name": "densenet", "depth": 121, "growth": 12}, "growth: received 12, expected 32"),
    ({"name": "given"}, "weights: imagenet: there are none for given"),
]


@pytest.mark.parametrize(("model", "message"), REFUSED)
def test_other_networks_are_refused_by_key_before_anything_is_fetched(model, message, tiny):
    with pytest.raises(UserError) as caught:
        parse_config(tiny | {"model": {"weights": "imagenet"} | model})
    (line,) = str(caught.value).splitlines()
    assert f"model.{message}" in line


def test_they_are_refused_in_python_too(web_server, monkeypatch):
    publish(monkeypatch, web_server, b"weights")
    with pytest.raises(UserError, match="stem: received cifar, expected imagenet, as weights"):
        resnet(18, stem="cifar", weights="imagenet")
    with pytest.raises(UserError, match="shortcut: received none"):
        plain(18, weights="imagenet")
    with pytest.raises(UserError, match="images of 3 channels, these have 1"):
        resnet(18, in_channels=1, weights="imagenet")
    with pytest.raises(UserError, match="growth: received 12"):
        densenet(121, growth=12, weights="imagenet")
    assert web_server.asked == []


def test_a_file_of_this_name_stays_possible(tmp_path, monkeypatch, published, tiny):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "imagenet").write_bytes(published[0])
    config = parse_config(tiny | {"model": {"depth": 18, "weights": "./imagenet"}})
    assert config.model.weights == str(tmp_path / "imagenet")
    assert weights_file(config.model, config.model.weights, 1) == tmp_path / "imagenet"
    network = resnet(18, weights="./imagenet")
    assert np.array_equal(network.conv1.weight, published[1].conv1.weight)


@pytest.mark.filterwarnings("ignore:.*learning rate of one_cycle")
def test_a_run_from_them_goes_on_and_opens_without_them(
    web_server, tmp_path, monkeypatch, published, repository, capsys
):
    from PIL import Image

    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / "photos" / part / name).mkdir(parents=True)
            for i in range(2):
                pixels = rng.integers(0, 256, (40, 40, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "photos" / part / name / f"{i}.png")
    overrides = [
        f"data.path={tmp_path / 'photos'}",
        "data.batch_size=2",
        "data.workers=0",
        "training.epochs=1",
        "optimizer.learning_rate=1e-5",
        "augmentation.train.0.random_resized_crop.size=32",
        "augmentation.eval.0.resize.size=32",
        "augmentation.eval.1.center_crop.size=32",
        "callbacks.visualdl=null",
    ]
    config = load_config(repository / "configs/resnet18_finetune.yaml", overrides)
    assert config.model.weights == "imagenet"
    publish(monkeypatch, web_server, published[0])
    command = ["--config", str(repository / "configs/resnet18_finetune.yaml"), "--dry-run"]
    assert main([*command, *(a for o in overrides for a in ("--set", o))]) == 2
    assert "a dry run downloads nothing" in capsys.readouterr().err
    assert web_server.asked == []
    with pytest.warns(UserWarning, match="its last layer is not loaded"):
        fit(config, tmp_path, "run")
    file = tmp_path / "home" / CACHE / "resnet18.pdparams"
    assert f"starts from {file}\n" in capsys.readouterr().out
    file.unlink()
    (web_server.folder / "resnet18.pdparams").unlink()
    assert resume(tmp_path / "run", ["training.epochs=2"]).summary["epochs"] == 2
    assert len(open_run(tmp_path / "run").classify([tmp_path / "photos/val/a/0.png"])) == 1
    assert web_server.asked == ["/resnet18.pdparams"]
