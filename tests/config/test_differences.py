"""What two configs differ in."""

from __future__ import annotations

from resnet_fit.config.differences import differences


def test_equal_configs_differ_in_nothing(tiny):
    assert list(differences(tiny, tiny)) == []


def test_the_path_and_both_values_of_each_setting_that_differs():
    was = {"mix": None, "training": {"epochs": 2, "seed": 0}}
    now = {"mix": {"cutmix": 1.0}, "training": {"epochs": 3, "seed": 0}}
    assert list(differences(was, now)) == [
        (("mix",), None, {"cutmix": 1.0}),
        (("training", "epochs"), 2, 3),
    ]


def test_of_a_section_of_another_name_only_the_name():
    was = {"optimizer": {"name": "sgd", "learning_rate": 0.1}}
    now = {"optimizer": {"name": "adam", "learning_rate": 0.2, "epsilon": 1e-8}}
    assert list(differences(was, now)) == [(("optimizer", "name"), "sgd", "adam")]


def test_the_item_of_a_list_or_all_of_it_where_it_has_another_length():
    was = {"train": [{"crop": {"padding": 4}}, {"flip": {}}]}
    other = {"train": [{"crop": {"padding": 2}}, {"flip": {}}]}
    shorter = {"train": [{"flip": {}}]}
    assert list(differences(was, other)) == [(("train", 0, "crop", "padding"), 4, 2)]
    assert list(differences(was, shorter)) == [(("train",), was["train"], shorter["train"])]


def test_another_operation_is_one_difference():
    was, now = {"flip": {"p": 0.5}}, {"cutout": {"size": 8}}
    assert list(differences({"train": [was]}, {"train": [now]})) == [(("train", 0), was, now)]


def test_a_key_that_only_one_of_them_has():
    assert list(differences({}, {"a": 1})) == [(("a",), None, 1)]
    assert list(differences({"a": 1}, {})) == [(("a",), 1, None)]
