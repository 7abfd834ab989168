"""YAML as configs use it: scalars of YAML 1.2, anchors, merge keys, and the line of each value."""

from __future__ import annotations

import pytest

from resnet_fit.config.document import dump, read_document
from resnet_fit.errors import UserError
from resnet_fit.runs.config import load_config


def test_scalars_follow_yaml_1_2(write_yaml):
    text = "a: 1e-3\nb: off\nc: yes\nd: 012\ne: true\nf: ~\ng: 1_000\nh: 1.\ni: 2026-01-01\n"
    assert read_document(write_yaml(text)).value == {
        "a": 0.001,
        "b": "off",
        "c": "yes",
        "d": 12,
        "e": True,
        "f": None,
        "g": "1_000",
        "h": 1.0,
        "i": "2026-01-01",
    }


@pytest.mark.parametrize(
    "text", ["off", "1e-3", "1e5", "012", "null", "~", "", "true", "1.", "a: b"]
)
def test_text_that_looks_like_something_else_survives_a_dump(text, write_yaml):
    assert read_document(write_yaml(dump({"key": text}))).value == {"key": text}


MERGED = """\
x-usual: &usual
  name: momentum
  learning_rate: {rate}
  momentum: 0.8
x-decay: &decay {{weight_decay: 0.1, momentum: 0.7}}
model: {{depth: [1, 1], stem: cifar, width: 8}}
data: {{name: digits}}
augmentation:
  train: &operations [horizontal_flip, normalize]
  eval: *operations
optimizer:
  <<: {merged}
  momentum: {momentum}
training: {{epochs: 2}}
"""


def test_merge_keys(write_yaml):
    """A key of its own wins, then the first of a list, as YAML's page on merge keys has it."""
    file = write_yaml(MERGED.format(rate=0.25, merged="[*usual, *decay]", momentum=0.9))
    optimizer = load_config(file).optimizer
    assert (optimizer.part_name, optimizer.learning_rate) == ("momentum", 0.25)
    assert (optimizer.weight_decay, optimizer.model_dump()["momentum"]) == (0.1, 0.9)
    file = write_yaml("a: &a {x: 1, y: 1}\nb: &b {<<: *a, y: 2}\nc: {z: 3, <<: [*b, *a]}\n")
    assert read_document(file).value["c"] == {"z": 3, "y": 2, "x": 1}


def test_one_anchor_serves_several_lists(write_yaml):
    file = write_yaml(MERGED.format(rate=0.25, merged="*usual", momentum=0.9))
    augmentation = load_config(file).augmentation
    assert augmentation.train == augmentation.eval


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": -1}, "3: optimizer.learning_rate: expected more than 0, received -1"),
        ({"momentum": 2}, "13: optimizer.momentum: expected less than 1, received 2"),
        ({"merged": "5"}, "12: <<: expected a mapping with an anchor (*name), or a list of such"),
        ({"merged": "*usual\n  <<: *decay"}, "13: <<: given twice; give a list: [*a, *b]"),
        ({"merged": "*nothing"}, "12: not valid YAML: found undefined alias 'nothing'"),
    ],
)
def test_mistakes_are_told_where_they_stand(write_yaml, change, message):
    usual = {"rate": 0.25, "merged": "*usual", "momentum": 0.9}
    file = write_yaml(MERGED.format(**usual | change))
    with pytest.raises(UserError) as error:
        load_config(file)
    assert str(error.value) == f"{file}:{message}"


def test_anchors_that_hold_themselves_are_refused(write_yaml):
    for text in ("a: &a [*a]", "a: &a {<<: *a}", "a: &a {b: &b {<<: *a}}"):
        with pytest.raises(UserError, match="nested too deeply or too large"):
            read_document(write_yaml(text))


def test_anchors_that_multiply_are_refused(write_yaml):
    text = "a0: &a0 [1, 1, 1]\n"
    text += "".join(f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]\n" for i in range(9))
    with pytest.raises(UserError, match="nested too deeply or too large"):
        read_document(write_yaml(text))
    text = "a0: &a0 {x: 1}\n"
    text += "".join(
        f"a{i + 1}: &a{i + 1} {{<<: [{', '.join([f'*a{i}'] * 9)}]}}\n" for i in range(40)
    )
    assert read_document(write_yaml(text)).value["a40"] == {"x": 1}


def test_the_text_of_a_merge_key_survives_a_dump(write_yaml):
    value = {"key": {"<<": 1}, "other": "<<"}
    assert read_document(write_yaml(dump(value))).value == value


@pytest.mark.parametrize("text", ["a: !!bool x", "a: !!int x", "a: !!float x", "a: !!set {x}"])
def test_tags_that_do_not_fit_are_refused(write_yaml, text):
    file = write_yaml(text)
    with pytest.raises(UserError, match=f"^{file}:1: "):
        read_document(file)
