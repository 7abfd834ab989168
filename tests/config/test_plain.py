"""Configs from Python: dictionaries of other YAML readers, NumPy's numbers, tuples and paths."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import REPOSITORY

from resnet_fit.errors import UserError
from resnet_fit.runs.config import load_config, parse_config

CONFIGS = sorted((REPOSITORY / "configs").glob("*.yaml"))


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_what_pyyaml_reads_is_the_same_experiment(file, monkeypatch):
    """PyYAML reads YAML 1.1, where off is False and 5e-4 is text."""
    monkeypatch.chdir(file.parent)  # where a base starts from
    assert parse_config(yaml.safe_load(file.read_text(encoding="utf-8"))) == load_config(file)


def test_what_yaml_1_1_reads_otherwise(tiny):
    text = """
    training: {epochs: 2, compile: off}
    loss: {label_smoothing: 1e-1}
    optimizer: {name: sgd, learning_rate: 5e-4, lr_factors: {layer1: 2e0}}
    augmentation: {train: [{horizontal_flip: {p: 3e-1}}, normalize]}
    """
    config = parse_config(tiny | yaml.safe_load(text))
    assert config.training.compile == "off"
    assert config.loss.label_smoothing == 0.1
    assert config.optimizer.learning_rate == 5e-4
    assert config.optimizer.lr_factors == {"layer1": 2.0}
    assert config.augmentation.train[0]["horizontal_flip"]["p"] == 0.3


@pytest.mark.parametrize(
    ("path", "read"), [("1e5", "1e5"), (date(2026, 1, 2), "2026-01-02"), (Path("a/b"), "a/b")]
)
def test_a_path_stays_what_it_is(tiny, path, read):
    tiny["data"] = {"name": "cifar10", "path": path}
    assert parse_config(tiny).data.path == str(Path.cwd() / read)


def test_numbers_in_quotes_are_text(tiny):
    tiny["optimizer"]["learning_rate"] = "0.1"
    with pytest.raises(UserError, match=r"^optimizer.learning_rate: expected .* received '0.1'"):
        parse_config(tiny)


def test_numpys_numbers_arrays_and_tuples(tiny):
    tiny["training"] |= {"epochs": np.int64(3)}
    tiny["loss"] = {"class_weights": np.linspace(0.5, 1.4, 10)}
    tiny["optimizer"] |= {"learning_rate": np.float32(0.5), "nesterov": np.bool_(True)}
    tiny["model"]["depth"] = (1, np.int32(2))
    config = parse_config(tiny)
    assert (config.training.epochs, config.optimizer.learning_rate) == (3, 0.5)
    assert config.optimizer.model_dump()["nesterov"] is True
    assert config.model.depth == [1, 2]
    assert config.loss.class_weights[0] == 0.5


def test_the_dictionary_stays_as_it_was(tiny):
    before = repr(tiny)
    parse_config(tiny, ["training.epochs=7", "augmentation.train=[normalize]"])
    assert repr(tiny) == before


@pytest.mark.parametrize("value", [None, [], "model", 5])
def test_no_dictionary_is_refused(value):
    with pytest.raises(UserError, match=r"^config: expected a dictionary of sections"):
        parse_config(value)


def test_a_base_that_is_not_there(tiny):
    with pytest.raises(UserError, match=r"^base: there is no file .*/no-such.yaml$"):
        parse_config(tiny | {"base": "no-such.yaml"})
