"""The shipped recipes: what their sources say, at every depth, and running."""

from __future__ import annotations

import re

import numpy as np
import pytest
from conftest import REPOSITORY
from PIL import Image

from resnet_fit import fit, load_config

CONFIGS = REPOSITORY / "configs"
IMAGENET = ["resnet50_imagenet_v1", "resnet50_imagenet_v2", "resnet50_imagenet_a3"]
RECIPES = [*IMAGENET, "resnet18_finetune"]


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_head_has_the_command_and_what_was_measured(file):
    head = "\n".join(re.findall(r"^# ?(.*)", file.read_text(), re.M))
    assert re.search(rf"^ +resnet-fit --config configs/{file.name}", head, re.M)
    assert re.search(r"^(Measured|Not (yet )?run)", head, re.M)


@pytest.mark.parametrize(
    ("name", "batch", "rate", "epochs"),
    [
        ("resnet50_imagenet_v1", 256, 0.1, 90),
        ("resnet50_imagenet_v2", 1024, 0.5, 600),
        ("resnet50_imagenet_a3", 2048, 8e-3, 100),
    ],
)
@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_imagenet_recipes_have_their_batch_and_rate(name, batch, rate, epochs, depth):
    config = load_config(CONFIGS / f"{name}.yaml", [f"model.depth={depth}"])
    assert config.data.batch_size * config.training.accumulate == batch
    assert config.optimizer.full_rate(batch) == pytest.approx(rate)
    assert config.training.epochs == epochs
    assert config.model.depth == depth


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for part, number in (("train", 8), ("val", 4)):
        for label in "ab":
            folder = tmp_path / "photos" / part / label
            folder.mkdir(parents=True)
            for i in range(number // 2):
                pixels = rng.integers(0, 256, (40, 48, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "photos"


@pytest.mark.filterwarnings("ignore:.*schedule.at_epochs")
@pytest.mark.parametrize("name", RECIPES)
def test_recipes_for_folders_run(name, photos, tmp_path, tiny):
    config = load_config(
        CONFIGS / f"{name}.yaml",
        [
            f"data.path={photos}",
            "data.batch_size=2",
            "data.workers=0",
            "model={depth: [1, 1], width: 8, stem: cifar, weights: null}",
            "training.epochs=6",
            "training.accumulate=2",
            "augmentation.train.0.random_resized_crop.size=16",
            "augmentation.eval.0.resize.size=20",
            "augmentation.eval.1.center_crop.size=16",
        ],
    )
    summary = fit(config, tmp_path, "run").summary
    assert summary["epochs"] == 6
    assert np.isfinite(summary["last"]["train"]["loss"])
