"""``--set``: what is given arrives, the last one wins, and a mistake is one line."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_fit.config.document import Document
from resnet_fit.config.overrides import override
from resnet_fit.errors import UserError
from resnet_fit.runs.config import load_config, parse_config

MANY = settings(max_examples=200, deadline=None)

# Surrogates are no text, and this one control character is the only one that JSON does not escape.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x7f"), max_size=12)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
KEYS = st.text("abcxyz_", min_size=1, max_size=5)


def value_of(text: str) -> Any:
    document = Document({})
    override(document, [f"key={text}"])
    return document.value["key"]


def test_overrides_reach_nested_keys_lists_and_absent_sections(tiny):
    config = parse_config(
        tiny,
        [
            "training.epochs=7",
            "training.precision=float32",
            "augmentation.train.0.random_crop.padding=2",
            "checkpoint.monitor=top5",
            "optimizer.learning_rate=1e-2",
            "model.depth=[1, 2]",
        ],
    )
    assert config.training.epochs == 7
    assert config.augmentation.train[0]["random_crop"]["padding"] == 2
    assert config.checkpoint.monitor == "top5"
    assert config.optimizer.learning_rate == 0.01
    assert config.model.depth == [1, 2]


@MANY
@given(value=JSON_VALUES)
def test_a_json_value_comes_back(value: Any) -> None:
    assert value_of(json.dumps(value)) == value


@MANY
@given(start=st.sampled_from("ab漢/#"), rest=st.text("abc xyz#é漢,.;/\\()~=+{}[]'-*&!|>%@1"))
def test_plain_text_comes_back_as_it_stands(start: str, rest: str) -> None:
    assert value_of(start + rest) == (start + rest).rstrip()


@MANY
@given(
    assignments=st.lists(
        st.tuples(st.lists(KEYS, min_size=1, max_size=3), st.integers()), min_size=1, max_size=8
    )
)
def test_the_last_of_several_wins(assignments: list[tuple[list[str], int]]) -> None:
    expected: dict[str, Any] = {}
    given_: list[str] = []
    for keys, value in assignments:
        target = expected
        for key in keys[:-1]:
            target = target.setdefault(key, {})
            if not isinstance(target, dict):
                break  # below a number there is nothing to set
        else:
            target[keys[-1]] = value
            given_.append(f"{'.'.join(keys)}={value}")
    document = Document({})
    override(document, given_)
    assert document.value == expected


ANY_TEXT = st.text(max_size=30) | st.text("{}[]:,-&*!|>'\"%@`?# \n\t=.a1<", max_size=30)


@MANY
@given(text=ANY_TEXT)
def test_any_text_is_a_value_or_one_line(text: str) -> None:
    for assignment in (text, f"key={text}", f"list.{text}", f"list.0.{text}"):
        document = Document({"list": ["operation", {"other": {}}]})
        try:
            override(document, [assignment])
        except UserError as error:
            (line,) = str(error).splitlines()
            assert line.startswith("--set ")


@MANY
@given(text=ANY_TEXT, section=st.sampled_from(["model", "data", "augmentation", "optimizer"]))
def test_any_text_for_a_section_is_a_config_or_a_line_for_each_mistake(
    text: str, section: str
) -> None:
    for assignment in (f"{section}={text}", f"{section}.{text}", f"{section}.name={text}"):
        try:
            parse_config(copy.deepcopy(TINY), [assignment])
        except UserError as error:
            lines = str(error).split("\n")
            assert all(line and line.isprintable() for line in lines), lines


@pytest.mark.parametrize("first", ["optimizer.name=sgd", "optimizer={name: sgd, weight_decay: 1}"])
def test_a_whole_section_replaces_what_was_set_in_it(tiny, first):
    config = parse_config(tiny, [first, "optimizer={name: adam, learning_rate: 0.5}"])
    assert (config.optimizer.part_name, config.optimizer.learning_rate) == ("adam", 0.5)
    assert config.optimizer.weight_decay == 0


def test_a_name_after_a_whole_section_starts_it_afresh(tiny):
    section = "optimizer={name: adam, learning_rate: 0.5}"
    config = parse_config(tiny, [section, "optimizer.learning_rate=0.1", "optimizer.name=sgd"])
    assert (config.optimizer.part_name, config.optimizer.learning_rate) == ("sgd", 0.1)
    with pytest.raises(UserError, match=r"^--set optimizer.name: optimizer.learning_rate: "):
        parse_config(tiny, [section, "optimizer.name=sgd"])


def test_of_two_names_the_last_one_counts(tiny):
    names = ["optimizer.learning_rate=1", "optimizer.name=sgd", "optimizer.name=adamw"]
    optimizer = parse_config(tiny, names).optimizer
    assert (optimizer.part_name, optimizer.learning_rate) == ("adamw", 1)


@pytest.mark.parametrize(
    "path", ["my photos #2", "#2", "2024", "a: b # c", "- a", "~me/photos", "5 # five", "1e5"]
)
def test_a_path_is_what_was_given(folder, path):
    assert parse_config(folder, [f"data.path={path}"]).data.path == str(Path.cwd() / path)


@pytest.mark.parametrize("quoted", ['"@home"', "'@home'", '"\\u0040home"'])
def test_quotes_make_text_of_anything(folder, quoted):
    assert parse_config(folder, [f"data.path={quoted}"]).data.path == str(Path("@home").absolute())


def test_a_comment_behind_a_number_is_no_number(tiny):
    with pytest.raises(UserError, match=r"^--set training.epochs: expected .* received '5 # five'"):
        parse_config(tiny, ["training.epochs=5 # five"])


@pytest.mark.parametrize(
    ("entry", "assignment"),
    [
        ("horizontal_flip", "horizontal_flip.p=0.3"),
        ("horizontal_flip", "horizontal_flip={p: 0.3}"),
        ({"horizontal_flip": None}, "horizontal_flip.p=0.3"),
        ({"horizontal_flip": {"p": 0.9, "alternate": False}}, "horizontal_flip.p=0.3"),
    ],
)
def test_options_of_an_operation_without_options(tiny, entry, assignment):
    tiny["augmentation"]["train"].insert(1, entry)
    train = parse_config(tiny, [f"augmentation.train.1.{assignment}"]).augmentation.train
    assert train[1] == {"horizontal_flip": {"p": 0.3, "alternate": False}}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("augmentation.train.1.normalise.std=1", "1 is 'normalize', which has no keys. Did you"),
        ("augmentation.train.2.cutout.size=1", "augmentation.train has items 0 to 1, received '2'"),
        ("augmentation.train.²=1", "augmentation.train has items 0 to 1, received '²'"),
        ("model.freeze=[", "the value is not valid YAML"),
        ("training.epochs=" + "9" * 5000, "expected int, received '999"),
        ("training.epochs=" + "[" * 5000, "nested too deeply"),
        ("data.path=a\nb\x00", "the value is not valid YAML"),
        ("training.e\npochs=1", "unknown key 'e\\npochs'. Did you mean 'epochs'?"),
        ('model.weights="\\ud800"', "holds half a character"),
    ],
)
def test_a_mistake_is_one_short_line(tiny, assignment, message):
    with pytest.raises(UserError) as error:
        parse_config(tiny, [assignment])
    (line,) = str(error.value).splitlines()
    assert line.startswith("--set ")
    assert message in line
    assert len(line) < 500


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.name=adam", "optimizer.learning_rate: required, but not given"),
        ("augmentation.train=[no_such, normalize]", "augmentation.train.0: unknown operation"),
        ("optimizer={name: sgd, learning_rate: x}", "optimizer.learning_rate: expected"),
    ],
)
def test_a_mistake_in_what_an_override_replaced_is_the_overrides(
    tiny, write_yaml, override, message
):
    with pytest.raises(UserError) as error:
        load_config(write_yaml(tiny), [override])
    assert str(error.value).startswith(f"--set {override.partition('=')[0]}: {message}")


def test_a_mistake_in_the_very_key_of_an_override_names_it_once(tiny, write_yaml):
    with pytest.raises(UserError) as error:
        load_config(write_yaml(tiny), ["training.epochs=0"])
    assert str(error.value) == "--set training.epochs: expected more than 0, received 0"


@pytest.fixture
def folder(tiny):
    tiny["data"]["name"] = "folder"
    tiny["augmentation"] = {
        "train": [{"random_resized_crop": {"size": 8}}, "normalize"],
        "eval": [{"resize": {"size": 8}}, {"center_crop": {"size": 8}}, "normalize"],
    }
    return tiny


def test_mistakes_of_two_files_and_an_override_each_have_their_place(tiny, write_yaml, tmp_path):
    tiny["training"]["epochs"] = -1
    write_yaml(tiny, "base.yaml")
    child = write_yaml("base: base.yaml\ndata: {batch_size: 0}\n")
    with pytest.raises(UserError) as error:
        load_config(child, ["model.stem=cifer"])
    stem, batch, epochs = str(error.value).splitlines()
    assert stem.startswith("--set model.stem: unknown value 'cifer'")
    assert batch.startswith(f"{child}:2: data.batch_size: ")
    assert epochs.startswith(f"{tmp_path}/base.yaml:")


@pytest.mark.parametrize("assignment", ["data.limit=", "model.weights=  "])
def test_no_value_is_not_taken_for_null(tiny, assignment):
    """As of a variable of the shell that is not set."""
    with pytest.raises(UserError, match=rf"--set {assignment}: no value; null stands for nothing"):
        parse_config(tiny, [assignment])
    assert parse_config(tiny, ["data.limit=null"]).data.limit is None


@pytest.mark.parametrize("switch", ["true", "false", "null"])
def test_settings_of_a_callback_turn_it_on(tiny, switch):
    first = f"callbacks.weight_average={switch}"
    config = parse_config(tiny, [first, "callbacks.weight_average.decay=0.9"])
    assert config.callbacks["weight_average"].decay == 0.9
