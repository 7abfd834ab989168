"""What is shown of a training changes nothing of it."""

from __future__ import annotations

import copy
import json

import pytest
from conftest import TINY
from stopping import Stop, stop_after
from test_resume import assert_equal_runs, records

from resnet_fit import fit, parse_config, resume
from resnet_fit.networks.graph import GRAPH

ALL = {"every_steps": 1, "images": True, "histograms": True, "graph": True}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One training with nothing shown, and with everything; it needs random numbers to go on."""
    value = copy.deepcopy(TINY)
    value["model"] |= {"stochastic_depth": 0.4}
    value["data"] |= {"batch_size": 100, "limit": 500}
    value["training"] = {"epochs": 3}
    folder = tmp_path_factory.mktemp("runs")
    for name, visualdl in (("nothing", None), ("everything", ALL)):
        fit(parse_config(value | {"callbacks": {"visualdl": visualdl}}), folder, name)
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 7)
        every_step = {"checkpoint": {"every_steps": 1}, "callbacks": {"visualdl": ALL}}
        config = parse_config(value | every_step)
        with pytest.raises(Stop):
            fit(config, folder, "stopped")
    resume(folder / "stopped")
    return folder


@pytest.mark.parametrize("name", ["everything", "stopped"])
def test_weights_and_metrics_are_the_same_bit_for_bit(runs, name, monkeypatch):
    monkeypatch.setattr("test_resume.records", lambda folder: None)  # there are none of `nothing`
    assert_equal_runs(runs / name, runs / "nothing")


def test_after_a_resume_the_same_is_shown(runs):
    shown = records(runs / "everything")
    assert records(runs / "stopped") == shown
    kinds = {kind for _, kind, _ in shown}
    assert kinds == {"scalar", "image", "histogram"}
    assert len(shown["train", "image", "batch"]) == 2  # of epochs 1 and 2


def test_the_graph_is_that_of_the_network(runs):
    graph = json.loads((runs / "everything" / "visualdl" / GRAPH).read_text())
    operations = [node["type"] for node in graph["nodes"]]
    assert operations.count("conv2d") == 6  # the stem, two blocks of two, one shortcut
    assert any("ResNet[model]" in node["name"] for node in graph["nodes"])
