"""Parts: found by kind and name, described by themselves, checked from Python as from a config."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pytest
from conftest import REPOSITORY
from pydantic import Field

from resnet_fit.config import registry
from resnet_fit.config.describe import describe
from resnet_fit.config.registry import CHOICES
from resnet_fit.errors import UserError
from resnet_fit.parts import (
    CallbackPart,
    Data,
    Geometric,
    Loss,
    Network,
    Operation,
    Optimizer,
    PositiveInt,
    Schedule,
    part,
    parts,
)
from resnet_fit.reports.listing import list_configs, list_kinds, list_parts, markdown
from resnet_fit.runs.config import CALLBACKS_ON, SECTIONS, load_config, parse_config
from resnet_fit.training.optimizers.momentum import Momentum

EVERY_PART = [(kind, name) for kind in registry.KINDS for name in registry.parts(kind)]


@pytest.mark.parametrize(("kind", "name"), EVERY_PART)
def test_every_setting_has_a_sentence(kind, name):
    description = describe(name, parts(kind)[name])
    assert description.sentence.endswith(".")
    for setting in description.settings:
        assert setting.sentence.endswith("."), setting.name


@pytest.mark.parametrize("name", SECTIONS)
def test_every_setting_of_a_section_has_a_sentence(name):
    for setting in describe(name, SECTIONS[name]).settings:
        assert setting.sentence.endswith("."), setting.name


def test_types_bounds_and_defaults_are_told():
    settings = {s.name: s for s in describe("momentum", Momentum).settings}
    assert (settings["momentum"].type, settings["momentum"].default) == (
        "number 0 or more, below 1",
        "0.9",
    )
    assert settings["learning_rate"].default is None
    inner = {s.name: s for s in describe("folder", parts("data")["folder"]).settings}
    assert inner["cache.shorter_side"].type == "whole number above 0"


def test_the_page_of_settings_is_what_the_parts_say():
    assert (REPOSITORY / "docs/settings.md").read_text("utf-8") == markdown()


def test_lists_name_everything_within_80_columns():
    kinds = "\n".join(list_kinds())
    for kind, name in EVERY_PART:
        assert name in kinds
        lines = list(list_parts(kind))
        assert any(line.startswith(f"{name}:") for line in lines)
        assert max(map(len, lines)) <= 80
    configs = "\n".join(list_configs())
    assert "resnet18_digits: " in configs
    assert "measured: 98.61 %" in configs.replace("\n      ", " ")
    with pytest.raises(UserError, match=r"unknown kind 'optimiser'\. Did you mean 'optimizer'\?"):
        list(list_parts("optimiser"))


def test_configs_are_read_without_paddle():
    script = (
        "import sys; from resnet_fit import load_config; import resnet_fit.parts; "
        "load_config('resnet50_imagenet_v2'); load_config('densenet_bc100_cifar'); "
        "sys.exit('paddle' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# --- from Python ----------------------------------------------------------------------


def test_settings_from_python_are_checked_in_one_line_each():
    with pytest.raises(UserError) as caught:
        Momentum.of(learning_rate=-1, momentun=0.9)
    lines = str(caught.value).splitlines()
    assert lines[0] == "learning_rate: expected more than 0, received -1"
    assert lines[1].startswith("momentun: unknown key 'momentun'. Did you mean 'momentum'? Valid: ")


def test_numbers_of_numpy_are_numbers():
    settings = Momentum.of(learning_rate=np.float32(0.5), reference_batch_size=np.int64(64))
    assert settings.learning_rate == 0.5
    assert type(settings.reference_batch_size) is int
    with pytest.raises(UserError, match="reference_batch_size: expected a whole number"):
        Momentum.of(learning_rate=1.0, reference_batch_size=np.float64(64))


# --- parts of one's own ---------------------------------------------------------------


def test_a_part_of_ones_own_is_as_good_as_ours(clean_registry, tiny):
    @part("optimizer", "mine")
    class Mine(Optimizer):
        """My optimizer.

        Args:
            lookback: steps to look back at.
            mode: one of two.
        """

        lookback: PositiveInt = 3
        mode: Annotated[str, Field(pattern="^[ab]$")] = "a"

    config = parse_config(tiny, ["optimizer={name: mine, learning_rate: 0.1, lookback: 5}"])
    assert config.optimizer == Mine(learning_rate=0.1, lookback=5)
    assert config.model_dump()["optimizer"]["name"] == "mine"
    with pytest.raises(
        UserError, match=r"mode: expected text that matches \^\[ab\]\$, received 'c'"
    ):
        parse_config(tiny, ["optimizer={name: mine, learning_rate: 0.1, mode: c}"])
    wrong = r"--set optimizer\.lookbak: unknown key 'lookbak'\. Did you mean 'lookback'\?"
    with pytest.raises(UserError, match=wrong):
        parse_config(tiny, ["optimizer={name: mine, learning_rate: 0.1}", "optimizer.lookbak=1"])
    with pytest.raises(UserError, match=r"unknown name 'mien'\. Did you mean 'mine'\?"):
        parse_config(tiny, ["optimizer={name: mien, learning_rate: 0.1}"])
    assert "  lookback (whole number above 0, 3 by default): steps to look back at." in list(
        list_parts("optimizer")
    )


def test_an_operation_of_ones_own_is_a_dataclass(clean_registry, tiny):
    @part("augmentation", "invert")
    @dataclass(frozen=True)
    class Invert(Operation):
        """Turn light into dark.

        Args:
            p: how often.
        """

        p: float = 0.5

    config = parse_config(tiny, ["augmentation.train=[invert: {p: 0.1}, normalize]"])
    assert config.augmentation.built(config.data, "train")[0] == Invert(0.1)
    with pytest.raises(UserError, match=r"train\.0\.invert\.q: unknown key 'q'"):
        parse_config(tiny, ["augmentation.train=[invert: {q: 0.1}, normalize]"])


# A config of one's own parts alone: the class that each kind starts from, and its line.
OWN = {
    "network": (Network, "model: {name: mine, %s}"),
    "data": (Data, "data: {name: mine, %s}"),
    "loss": (Loss, "loss: {name: mine, %s}"),
    "optimizer": (Optimizer, "optimizer: {name: mine, learning_rate: 0.1, %s}"),
    "schedule": (Schedule, "schedule: {name: mine, %s}"),
    "callback": (CallbackPart, "callbacks: {mine: {%s}}"),
    "augmentation": (Operation, "augmentation: {train: [mine: {%s},"),
    "transform": (Geometric, "  of_files: {%s}, normalize]}"),
}


@pytest.fixture
def own_parts(clean_registry):
    """A part of one's own of each kind, with one setting."""
    assert set(OWN) == set(registry.KINDS)
    for kind, (base, _) in OWN.items():
        body = {"__module__": __name__, "__annotations__": {"lookback": PositiveInt}, "lookback": 3}
        if kind == "data":  # of files and of arrays
            body["operations"] = lambda self: {**parts("augmentation"), **parts("transform")}
        cls = type(f"Own{kind.title()}", (base,), body)
        if kind in ("augmentation", "transform"):
            cls = dataclass(frozen=True)(cls)
        part(kind, "of_files" if kind == "transform" else "mine")(cls)


@pytest.mark.parametrize("kind", OWN)
def test_a_mistake_in_a_part_of_ones_own_is_told_as_in_ours(own_parts, write_yaml, kind):
    """In one line: the file, the line, the key and the nearest name."""

    def refusal(settings):
        given = {each: settings if each == kind else "lookback: 3" for each in OWN}
        lines = [line % given[each] for each, (_, line) in OWN.items()]
        file = write_yaml("\n".join([*lines, "training: {epochs: 1}"]))
        with pytest.raises(UserError) as caught:
            load_config(file)
        (line,) = str(caught.value).splitlines()
        place = f"{file}:{list(OWN).index(kind) + 1}: "
        assert line.startswith(place), line
        return line.removeprefix(place)

    message = refusal("lookbak: 5")
    assert re.match(r"[\w.]*lookbak: unknown key 'lookbak'\. Did you mean 'lookback'\?", message)
    message = refusal("lookback: 0")
    assert re.match(r"[\w.]*lookback: expected .*, received 0", message), message


def test_a_name_can_be_taken_once(clean_registry):
    with pytest.raises(UserError, match=r"loss 'cross_entropy' is already .*CrossEntropy"):

        @part("loss", "cross_entropy")
        class Mine(Loss):
            """Mine."""

    with pytest.raises(UserError, match=r"kind='losss': choose .* Did you mean 'loss'\?"):
        part("losss", "mine")


def test_defaults_name_parts_that_are_there():
    for choice in CHOICES.values():
        assert choice.default is None or choice.default in parts(choice.kind)
    assert set(CALLBACKS_ON) <= set(parts("callback"))


def test_callbacks_are_turned_on_and_off(tiny):
    assert set(parse_config(tiny).callbacks) == {"visualdl"}
    config = parse_config(
        tiny, ["callbacks.visualdl=null", "callbacks.weight_average=true"]
    ).callbacks
    assert config["visualdl"] is None
    assert config["weight_average"].decay == 0.999
    decayed = parse_config(tiny, ["callbacks.weight_average.decay=0.5"]).callbacks
    assert decayed["weight_average"].decay == 0.5


def test_shipped_configs_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    by_name = load_config("resnet18_digits")
    assert by_name == load_config(REPOSITORY / "configs/resnet18_digits.yaml")
    with pytest.raises(UserError, match=r"Did you mean 'resnet18_digits'\?"):
        load_config("resnet18_digit")
