"""Configs: what is read, overridden and written is what was meant."""

from __future__ import annotations

import pytest
from conftest import REPOSITORY

from resnet_fit.errors import UserError
from resnet_fit.runs.config import dump_config, load_config, parse_config

CONFIGS = sorted(p.stem for p in (REPOSITORY / "configs").glob("*.yaml"))


@pytest.mark.parametrize("name", CONFIGS)
def test_every_shipped_config_survives_dump_and_load(name, repository, write_yaml):
    config = load_config(repository / "configs" / f"{name}.yaml")
    again = load_config(write_yaml(dump_config(config)))
    assert again == config
    assert dump_config(again) == dump_config(config)


def test_options_of_operations_are_written_out(tiny):
    config = parse_config(tiny)
    assert config.augmentation.train == [
        {"random_crop": {"padding": 1, "mode": "zero", "size": None}},
        {"normalize": {"mean": None, "std": None}},
    ]
    assert config.augmentation.eval == [{"normalize": {"mean": None, "std": None}}]


def test_paths_are_absolute_once_they_are_read(tiny, write_yaml, tmp_path, monkeypatch):
    """A link on the way stays: ``..`` behind it leads elsewhere than in front of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    tiny["data"] |= {"name": "cifar10", "path": "../photos"}
    config = parse_config(tiny, ["model.weights=~/resnet18.pth"])
    assert config.data.path == f"{tmp_path}/../photos"
    assert config.model.weights == "/home/somebody/resnet18.pth"
    monkeypatch.chdir("/")
    assert load_config(write_yaml(dump_config(config))) == config


def test_another_kind_of_optimizer_starts_its_section_afresh(tiny):
    tiny["optimizer"] |= {"nesterov": True, "weight_decay": 0.1}
    config = parse_config(tiny, ["optimizer.learning_rate=0.003", "optimizer.name=adamw"])
    assert config.optimizer.part_name == "adamw"
    assert config.optimizer.model_dump() == {
        "learning_rate": 0.003,
        "reference_batch_size": None,
        "weight_decay": 0.0,
        "decay_norms_and_biases": False,
        "lr_factors": {},
        "clip_norm": None,
        "beta1": 0.9,
        "beta2": 0.999,
        "epsilon": 1e-8,
    }
    with pytest.raises(UserError, match=r"optimizer.learning_rate: required"):
        parse_config(tiny, ["optimizer.name=adamw"])


DENSE = {"name": "densenet", "depth": 22, "stem": "cifar"}


def test_a_model_without_a_name_is_a_resnet(tiny):
    assert parse_config(tiny).model.part_name == "resnet"
    tiny["model"] = DENSE
    model = parse_config(tiny).model
    assert model.part_name == "densenet"
    assert model.model_dump(exclude_defaults=True) == {"depth": 22, "stem": "cifar"}


def test_another_kind_of_model_starts_its_section_afresh(tiny, write_yaml):
    config = parse_config(tiny, ["model.depth=22", "model.name=densenet", "model.stem=cifar"])
    assert config.model.model_dump(exclude_defaults=True) == {"depth": 22, "stem": "cifar"}
    write_yaml(tiny, "base.yaml")
    model = load_config(write_yaml({"base": "base.yaml", "model": DENSE})).model
    assert (model.part_name, model.depth) == ("densenet", 22)


@pytest.mark.parametrize("name", ["", "name: resnet, "])
def test_naming_the_usual_model_is_no_other_kind(tiny, write_yaml, name):
    write_yaml(tiny, "base.yaml")
    config = load_config(write_yaml(f"base: base.yaml\nmodel: {{{name}width: 4}}\n"))
    assert (config.model.depth, config.model.model_dump()["width"]) == ([1, 1], 4)
    again = parse_config(tiny, ["model.name=resnet", "model.width=4"])
    assert again.model == config.model


def test_base_is_read_first_and_changed(tiny, write_yaml):
    write_yaml(tiny, "base.yaml")
    child = write_yaml("base: base.yaml\ntraining: {seed: 5}\noptimizer: {nesterov: true}\n")
    config = load_config(child)
    assert (config.training.epochs, config.training.seed) == (2, 5)
    assert config.optimizer.model_dump()["nesterov"] is True


def test_a_base_may_be_a_config_that_comes_with_the_library(write_yaml):
    for name in ("resnet18_digits", "resnet18_digits.yaml"):
        config = load_config(write_yaml(f"base: {name}\ntraining: {{seed: 5}}\n"))
        assert (config.data.part_name, config.training.seed) == ("digits", 5)
    with pytest.raises(UserError, match=r"base: there is no file .*/resnet18_digit$"):
        load_config(write_yaml("base: resnet18_digit\n"))


def test_a_mistake_in_a_base_is_shown_where_it_stands(tiny, write_yaml, tmp_path):
    tiny["training"]["epochs"] = -1
    write_yaml(tiny, "base.yaml")
    child = write_yaml("base: base.yaml\n")
    with pytest.raises(UserError, match=rf"^{tmp_path}/base.yaml:\d+: training.epochs: "):
        load_config(child)


def test_what_a_file_leaves_out_is_not_looked_for_in_its_base(tiny, write_yaml, tmp_path):
    """A new name starts a section afresh: the base's learning rate is gone, and so is its line."""
    write_yaml(tiny, "base.yaml")
    child = write_yaml("base: base.yaml\noptimizer:\n  name: adam\n")
    with pytest.raises(UserError) as error:
        load_config(child)
    assert str(error.value) == f"{child}:2: optimizer.learning_rate: required, but not given"


def test_bases_in_a_circle_are_refused(write_yaml):
    write_yaml("base: b.yaml\n", "a.yaml")
    b = write_yaml("base: a.yaml\n", "b.yaml")
    with pytest.raises(UserError, match="leads back"):
        load_config(b)


def test_every_mistake_gets_its_own_line(tiny, write_yaml):
    tiny["training"] |= {"epochs": "ten", "sed": 3}
    tiny["model"]["stem"] = "cifer"
    with pytest.raises(UserError) as caught:
        load_config(write_yaml(tiny))
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert all("experiment.yaml:" in line for line in lines)
