"""``resnet-fit profile``: time is told where it was spent, and the training is not another one."""

from __future__ import annotations

import json
import time

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.autograd import PyLayer

from resnet_fit import densenet, parse_config, resnet
from resnet_fit.backends import use_backend
from resnet_fit.callbacks import StepSeed
from resnet_fit.cli import main
from resnet_fit.data.loading import ArrayLoader
from resnet_fit.networks.blocks import Layers
from resnet_fit.parts import Network, part
from resnet_fit.reports.layer_times import LayerTimes
from resnet_fit.reports.profile import _Batches, profile
from resnet_fit.reports.stopwatch import (
    BACKWARD,
    CALLBACKS,
    FORWARD,
    LOSS,
    OPTIMIZER,
    PHASES,
    WAITING,
    Stopwatch,
)
from resnet_fit.training.objectives import CrossEntropy

# Far longer than a step of the tiny network takes on a busy machine.
NAP = 0.15


def slow(call, seconds=NAP):
    def slowed(*arguments, **options):
        time.sleep(seconds)
        return call(*arguments, **options)

    return slowed


class Sleepy(PyLayer):
    """Nothing, slowly: forward and backward."""

    @staticmethod
    def forward(ctx, x):
        time.sleep(NAP / 2)
        return x * 1.0

    @staticmethod
    def backward(ctx, dy):
        time.sleep(NAP)
        return dy * 1.0


class SleepyLayer(nn.Layer):
    def forward(self, x):
        return Sleepy.apply(x)


class SleepyNetwork(Network):
    """A residual network, with a slow layer in it."""

    def build(self, classes, channels):
        network = resnet([1, 1], classes, "cifar", width=8, in_channels=channels)
        network.layer1[0].bn1 = SleepyLayer()
        return network


@pytest.mark.parametrize(
    ("phase", "owner", "method"),
    [
        (LOSS, CrossEntropy, "forward"),
        (OPTIMIZER, paddle.optimizer.Momentum, "step"),
        (CALLBACKS, StepSeed, "on_train_batch_begin"),
        (WAITING, ArrayLoader, "_mixed"),
    ],
)
def test_phases_are_told_apart(tiny, monkeypatch, phase, owner, method):
    """One part is slowed down, and the phase that takes longest is its own."""
    monkeypatch.setattr(owner, method, slow(getattr(owner, method)))
    if phase is OPTIMIZER:  # which else calls it in C++
        monkeypatch.setattr(owner, "minimize", lambda self, _: self.step())
    found = profile(parse_config(tiny), 1)
    assert max(PHASES, key=found.median) == phase


@pytest.mark.parametrize("backend", ["paddle", "onednn"])
def test_a_slow_layer_is_found_forward_and_backward(tiny, backend, clean_registry):
    part("network", "sleepy")(SleepyNetwork)
    tiny["model"] = {"name": "sleepy"}
    found = profile(parse_config(tiny, [f"training.backend={backend}"]), 1)
    (name, forward, backward), *_ = found.by_layer()
    assert name == "layer1.0.bn1 + ReLU"
    assert forward >= NAP / 2
    assert backward >= NAP
    assert found.median(FORWARD) >= NAP / 2
    assert found.median(BACKWARD) >= NAP


@pytest.mark.parametrize("backend", ["paddle", "channels_last", "onednn"])
@pytest.mark.parametrize("name", ["resnet", "pooled", "bottleneck", "densenet"])
def test_timing_layers_changes_no_number(backend, name):
    networks = []
    for timed in (False, True):
        paddle.seed(0)
        network = {
            "resnet": lambda: resnet([1, 1], 10, "cifar", width=8, shortcut="zero-pad"),
            "pooled": lambda: resnet(
                [1, 1], 10, "cifar", width=8, shortcut="average", stride_on="pool"
            ),
            "bottleneck": lambda: resnet([1, 1], 10, "imagenet", width=8, block="bottleneck"),
            "densenet": lambda: densenet([2, 2], 10, "cifar", growth=4),
        }[name]()
        use_backend(network, backend)
        if timed:
            watch = Stopwatch()
            times = LayerTimes(network, (3, 80, 80), watch)
            times.enabled = True
        images = paddle.arange(2 * 3 * 80 * 80, dtype="float32").reshape([2, 3, 80, 80]) % 255
        loss = network(images / 255).square().sum()
        if timed:
            watch.mark(BACKWARD)
        loss.backward()
        networks.append(network)
    watch.mark(OPTIMIZER)
    for ours, theirs in zip(*(network.parameters() for network in networks), strict=True):
        assert np.array_equal(ours.numpy(), theirs.numpy())
        if not ours.stop_gradient:
            assert np.array_equal(ours.grad.numpy(), theirs.grad.numpy()), ours.name
    taken = times.take()
    layers = {
        layer
        for layer, kind in networks[1].named_sublayers()
        if isinstance(kind, (nn.Conv2D, nn.BatchNorm2D, nn.Linear))
    }
    assert layers <= {found.removesuffix(" + ReLU") for found in taken}
    assert all(
        forward > 0 and backward > 0 for n, (forward, backward) in taken.items() if n in layers
    )


def test_layers_of_a_network_without_parts_of_ours(tiny):
    """Hooks time them."""
    network = nn.Sequential(
        nn.Conv2D(3, 4, 3), nn.Sequential(nn.ReLU(), nn.Flatten()), nn.Linear(144, 2)
    )
    watch = Stopwatch()
    times = LayerTimes(network, (3, 8, 8), watch)
    times.enabled = True
    loss = network(paddle.ones([2, 3, 8, 8])).sum()
    watch.mark(BACKWARD)
    loss.backward()
    watch.mark(OPTIMIZER)
    assert set(times.take()) == {"0", "1.0", "1.1", "2", "(loss)"}


def test_layers_are_those_of_a_backend_as_it_stands():
    """A custom norm is handed to Paddle, and timed as the layer that it is."""
    network = resnet(
        [1, 1], 10, "cifar", width=8, layers=Layers(norm=lambda c, weight=1.0: nn.GroupNorm(2, c))
    )
    use_backend(network, "onednn")
    times = LayerTimes(network, (3, 16, 16), Stopwatch())
    times.enabled = True
    network(paddle.ones([2, 3, 16, 16]))
    assert {"bn1 + ReLU", "layer1.0.conv1", "fc"} <= set(times.take())


def test_accumulated_batches_are_one_step(tiny, monkeypatch):
    kinds, step = [], _Batches._step

    def noted(self, batches, timed):
        kinds.append(timed)
        return step(self, batches, timed)

    monkeypatch.setattr(_Batches, "_step", noted)
    tiny["training"]["accumulate"] = 3
    found = profile(parse_config(tiny), 2)
    assert not kinds[0]
    assert kinds[-5:] == [True, False, True, False, True]  # the first belongs to the warm-up
    assert found.images == 192
    assert len(found.steps) == len(found.with_layers) == len(found.layers) == 2
    assert found.step_seconds > 0


def test_with_averaged_weights_and_a_graph(tiny):
    tiny["training"]["compile"] = "static"
    tiny["callbacks"] = {"weight_average": {}, "early_stopping": {"patience": 1}}
    found = profile(parse_config(tiny), 2)
    assert found.layers_cost is None
    assert not found.layers
    assert sum(found.share(phase) for phase in PHASES) == pytest.approx(1)


def test_phases_add_up_to_the_time_that_went_by(tiny):
    started = time.perf_counter()
    found = profile(parse_config(tiny), 5)
    spent = time.perf_counter() - started
    told = sum(sum(step.values()) for step in [*found.steps, *found.with_layers])
    assert 0 < told < spent
    assert found.mark_seconds < 0.01 * found.step_seconds


# --- the command ----------------------------------------------------------------------


def test_the_command_shows_phases_and_layers(write_yaml, tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = str(write_yaml(tiny))
    arguments = ["--steps", "2", "--top", "4", "--output", "trace"]
    assert main(["profile", "--config", config, *arguments]) == 0
    text, complaints = capsys.readouterr()
    assert complaints == ""
    rows = {line.split("  ")[0] for line in text.splitlines()}
    assert rows >= set(PHASES)
    assert any(line.startswith("14 more ") for line in text.splitlines()), text
    assert text.endswith("to see the trace: resnet-fit view trace\n")
    assert {p.name for p in tmp_path.iterdir()} == {"experiment.yaml", "trace"}
    (file,) = (tmp_path / "trace").iterdir()
    trace = json.loads(file.read_text())
    assert trace["span_indx"] == trace["span_index"]
    events = {event["name"].split("[")[0] for event in trace["traceEvents"] if "name" in event}
    assert {"layer1.0.conv1", "layer2.0.bn2", "waiting for data", "optimizer"} <= events
    steps = [e for e in trace["traceEvents"] if e.get("cat") == "ProfileStep"]
    assert len(steps) >= 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--steps", "0"], "--steps: received '0', expected a whole number from 1"),
        (["--top", "many"], "--top: received 'many', expected a whole number from 1"),
        (["--output", "experiment.yaml"], "is a file, expected a folder"),
        (["--set", "training.epoch=1"], "Did you mean 'epochs'?"),
    ],
)
def test_a_mistake_is_one_line(write_yaml, tiny, tmp_path, monkeypatch, arguments, words, capsys):
    config = str(write_yaml(tiny))
    monkeypatch.chdir(tmp_path)
    assert main(["profile", "--config", config, *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
