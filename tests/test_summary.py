"""``resnet-fit summary``: counts against published and hand-computed ones, fields, memory."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle import nn
from rich.console import Console

import resnet_fit
from resnet_fit import densenet, freeze, parse_config, resnet
from resnet_fit.backends import plain
from resnet_fit.cli import main
from resnet_fit.networks.complexity import (
    count_buffers,
    count_frozen,
    count_parameters,
    layer_costs,
)
from resnet_fit.networks.receptive_field import receptive_fields
from resnet_fit.reports.memory import estimate_memory
from resnet_fit.reports.summary import summarize

IMAGENET = (3, 224, 224)


def resnet_18_by_hand() -> tuple[int, int]:
    """Parameters and multiply-accumulates, from table 1 of He et al. 2015."""
    # (inputs, outputs, kernel, pixels a side of the output, how often)
    convolutions = [(3, 64, 7, 112, 1), (64, 64, 3, 56, 4)]
    for channels, pixels in ((128, 28), (256, 14), (512, 7)):
        convolutions += [
            (channels // 2, channels, 3, pixels, 1),
            (channels, channels, 3, pixels, 3),
            (channels // 2, channels, 1, pixels, 1),
        ]
    weights = sum(i * o * k * k * n for i, o, k, _, n in convolutions)
    norms = sum(2 * o * n for _, o, _, _, n in convolutions)
    work = sum(i * o * k * k * p * p * n for i, o, k, p, n in convolutions)
    return weights + norms + 512 * 1000 + 1000, work + 512 * 1000


def test_resnet_18_has_the_size_and_work_computed_by_hand():
    network = resnet(18)
    costs = layer_costs(network, IMAGENET)
    parameters, macs = resnet_18_by_hand()
    assert count_parameters(network) == sum(c.parameters for c in costs) == parameters
    assert sum(cost.macs or 0 for cost in costs) == macs
    assert parameters == 11_689_512  # as torchvision publishes it
    assert round(macs / 1e9, 2) in (1.81, 1.82)


def test_resnet_50_has_the_published_size_and_work():
    network = resnet(50)
    costs = layer_costs(network, IMAGENET)
    assert count_parameters(network) == 25_557_032
    assert round(sum(cost.macs or 0 for cost in costs) / 1e9, 2) == 4.09
    assert costs[0].name == "conv1"
    assert costs[0].output == (64, 112, 112)
    assert costs[-1].name == "fc"
    assert count_buffers(network) == 2 * 26_560  # channels that are normalised


def test_frozen_parameters_are_no_buffers():
    network = resnet(18, 10, "cifar")
    whole, buffers = count_parameters(network), count_buffers(network)
    freeze(network)
    assert count_parameters(network) == 5130
    assert count_frozen(network) == whole - 5130
    assert count_buffers(network) == buffers


class Scale(nn.Layer):
    """A layer of a user's own: one weight for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.factors = self.create_parameter([channels])

    def forward(self, x):
        return x * self.factors.reshape([1, -1, 1, 1])


def test_a_users_own_layer_is_listed_and_its_work_is_not_guessed():
    inner = nn.Conv2D(3, 4, 3, padding=1)
    network = nn.Sequential(inner, Scale(4), nn.Conv2D(4, 4, 1), nn.Flatten(), nn.Linear(64, 2))
    inner.add_sublayer("idle", nn.Linear(3, 3))
    costs = {c.name: c for c in layer_costs(network, (3, 4, 4))}
    assert costs["1"].kind == "Scale"
    assert costs["1"].parameters == 4
    assert costs["1"].macs is None
    assert costs["2"].macs == 4 * 4 * 16
    assert costs["4"].macs == 128
    assert costs["0.idle"].output is None
    assert list(costs)[-1] == "0.idle"
    assert receptive_fields(network, (3, 4, 4)) == {}


def test_a_layer_that_is_called_twice_works_twice_and_has_its_parameters_once():
    shared = nn.Conv2D(4, 4, 3, padding=1)
    network = nn.Sequential(shared, nn.ReLU(), shared)
    (cost,) = (c for c in layer_costs(network, (4, 5, 5)) if c.kind == "Conv2D")
    assert cost.macs == 2 * 4 * 4 * 9 * 25
    assert cost.parameters == count_parameters(network) == 4 * 4 * 9 + 4


def test_counting_leaves_a_network_as_it_was():
    network = resnet(18, 10, "cifar", width=4)
    network.layer1.eval()
    before = {name: value.numpy().copy() for name, value in network.state_dict().items()}
    modes = [layer.training for layer in network.sublayers(True)]
    layer_costs(network, (3, 8, 8))
    receptive_fields(network, (3, 8, 8))
    estimate_memory(network, (3, 8, 8), 4)
    assert [layer.training for layer in network.sublayers(True)] == modes
    assert not any(layer._forward_post_hooks for layer in network.sublayers(True))
    for name, value in network.state_dict().items():
        assert np.array_equal(value.numpy(), before[name]), name
    assert network(paddle.zeros([1, 3, 8, 8])).shape == [1, 10]


# --- receptive fields -----------------------------------------------------------------


def measured_field(network: nn.Layer, layer: str, pixels: int) -> int:
    """Pixels across that have a gradient of the middle of a layer's output, weights all above 0."""
    network.eval()
    network.to(dtype="float64")
    for name, parameter in network.named_parameters():
        # Means instead of sums, so that nothing overflows; running means stay 0.
        if len(parameter.shape) > 1:
            parameter.set_value(paddle.full_like(parameter, 1 / math.prod(parameter.shape[1:])))
        elif not name.endswith("_mean"):
            parameter.set_value(paddle.full_like(parameter, 1.0))
    seen: list[paddle.Tensor] = []
    hook = getattr(network, layer).register_forward_post_hook(lambda _, __, y: seen.append(y))
    image = paddle.ones([1, 3, pixels, pixels], "float64")
    image.stop_gradient = False
    network(image)
    hook.remove()
    middle = seen[0].shape[2] // 2
    (gradient,) = paddle.grad(seen[0][0, :, middle, middle].sum(), image)
    rows = np.flatnonzero(gradient.numpy().any(axis=(0, 1, 3)))
    assert 0 < rows[0] < rows[-1] < pixels - 1, "the image is too small to see all of the field"
    return int(rows[-1] - rows[0] + 1)


@pytest.mark.filterwarnings("ignore:stem='imagenet' shrinks")
@pytest.mark.parametrize("layer", ["layer1", "layer2", "layer3", "layer4"])
def test_fields_of_resnet_18_are_those_that_gradients_show(layer, monkeypatch):
    """A mean in place of the maximum: that one's gradient reaches a single pixel of each nine."""
    monkeypatch.setattr(plain, "max_pool", lambda x: nn.functional.avg_pool2d(x, 3, 2, 1))
    network = resnet(18, width=2)
    told = receptive_fields(network, (3, 64, 64))[layer].size
    assert told[0] == told[1] == measured_field(network, layer, 512)


def test_fields_of_a_densenet_are_those_that_gradients_show():
    network = densenet([2, 3], 10, "cifar", growth=2)
    told = receptive_fields(network, (3, 16, 16))
    for layer in ("db_conv_2", "tr_conv2_blk", "db_conv_3"):
        assert told[layer].size == (measured_field(network, layer, 32),) * 2
    assert told["db_conv_3"].stride == (2, 2)


def test_published_fields():
    """Layer 4 of ResNet-18 and, with the stride on the 1x1, of ResNet-50: Araujo et al. 2019."""
    assert receptive_fields(resnet(18), IMAGENET)["layer4"].size == (435, 435)
    assert receptive_fields(resnet(50, stride_on="1x1"), IMAGENET)["layer4"].size == (483, 483)


def test_fields_end_where_they_cannot_be_told():
    network = resnet(18, 10, "cifar", width=4)
    network.layer2[0].conv1 = nn.Sequential(Scale(4), network.layer2[0].conv1)
    assert set(receptive_fields(network, (3, 32, 32))) == {"conv1", "bn1", "layer1"}


# --- memory ---------------------------------------------------------------------------


# In a process of its own: what other tests hold would count.
MEASUREMENT = """
from resnet_fit.runtime import prepare_environment
prepare_environment()
import sys
import numpy as np
import paddle
from resnet_fit import resnet
from resnet_fit.backends import use_backend
from resnet_fit.reports.memory import estimate_memory

count = paddle.base.core
network = resnet(18, 10, "cifar", width=16)
use_backend(network, sys.argv[1])
told = estimate_memory(network, (3, 32, 32), 64, slots=1)
model = paddle.Model(network)
optimizer = paddle.optimizer.Momentum(0.01, parameters=network.parameters())
model.prepare(optimizer, paddle.nn.CrossEntropyLoss())
images, labels = np.zeros([64, 3, 32, 32], "float32"), np.zeros([64], "int64")
model.train_batch([images], [labels])
count.host_memory_stat_reset_peak_value("Allocated", 0)
model.train_batch([images], [labels])
print(told.total, count.host_memory_stat_peak_value("Allocated", 0))
"""


@pytest.mark.skipif(
    not hasattr(paddle.base.core, "host_memory_stat_reset_peak_value"),
    reason="this Paddle cannot forget the peak of its memory",
)
@pytest.mark.parametrize("backend", ["paddle", "onednn"])
def test_memory_of_a_real_step_is_as_estimated(backend):
    done = subprocess.run(
        [sys.executable, "-c", MEASUREMENT, backend],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(resnet_fit.__file__).parents[1])},
    )
    told, peak = map(int, done.stdout.split()[-2:])
    assert told == pytest.approx(peak, rel=0.05)


def test_memory_knows_optimizer_average_and_precision(tiny):
    tiny["model"]["width"] = 16
    plain = summarize(parse_config(tiny), batch_size=8).memory
    tiny["optimizer"] = {"name": "adam", "learning_rate": 0.1}
    tiny["callbacks"] = {"weight_average": {}}
    other = summarize(parse_config(tiny), batch_size=8).memory
    assert plain is not None
    assert other is not None
    assert other.optimizer == 2 * plain.optimizer == 2 * plain.gradients
    assert (plain.average, other.average) == (0, plain.weights)
    assert other.activations == plain.activations


# --- the command ----------------------------------------------------------------------


def test_the_command_prints_every_layer_and_the_totals(write_yaml, tiny, capsys):
    assert main(["summary", "--config", str(write_yaml(tiny)), "--batch-size", "16"]) == 0
    text = capsys.readouterr().out
    rows = [line.split() for line in text.splitlines() if line]
    assert rows[1] == ["conv1", "Conv2D", "8x8x8", "72", "4,608"]
    assert ["fc", "Linear", "10", "170", "160"] in rows
    assert ["layer2", "13x13", "2x2", "100%"] in rows
    assert "parameters trained; " in text
    assert " MB for a training step of 16 images (cpu, " in text


def test_json_says_the_same_as_the_run(write_yaml, tiny, capsys):
    config = str(write_yaml(tiny))
    assert main(["summary", "--config", config, "--format", "json", "--set", "data.limit=50"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["image_shape"] == [1, 8, 8]
    assert summary["classes"] == 10
    assert summary["macs"] == sum(layer["macs"] for layer in summary["layers"])
    assert summary["parameters"]["trained"] == sum(s["parameters"] for s in summary["layers"])
    assert summary["memory"]["total"] == sum(summary["memory"].values()) / 2


@pytest.mark.parametrize("columns", [30, 40, 60, 100])
def test_tables_fit_the_terminal(tiny, columns):
    tiny["model"] = {"name": "densenet", "depth": [2, 2], "stem": "cifar", "growth": 12}
    output = StringIO()
    console = Console(file=output, force_terminal=True, width=columns, color_system=None)
    summarize(parse_config(tiny)).print(console)
    text = output.getvalue()
    assert max(map(len, text.splitlines())) <= columns
    assert columns < 40 or "db_conv_2" in text


@pytest.fixture
def without_data(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("RESNET_FIT_DATA", raising=False)


def test_the_data_need_not_be_there(without_data, capsys):
    arguments = ["summary", "--config", "resnet20_cifar"]
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("; or give --classes N and --image CxHxW")
    assert main([*arguments, "--classes", "100", "--image", "3x32x32"]) == 0
    assert "fc" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--image", "3x32"], "--image: received '3x32', expected channels, height and width"),
        (["--classes", "0"], "--classes: received '0', expected a whole number from 1"),
        (["--format", "yaml"], "--format: invalid choice: 'yaml'"),
        (["--set", "model.dept=3"], "Did you mean 'depth'?"),
        (["--classes", "10", "--image", "3x1x1"], "too small"),
    ],
)
def test_a_mistake_is_one_line(write_yaml, tiny, arguments, words, capsys):
    tiny["model"] = {"name": "densenet", "depth": 40, "stem": "cifar"}
    assert main(["summary", "--config", str(write_yaml(tiny)), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_the_help_does_not_import_paddle():
    for command in ("summary", "find-lr", "profile"):
        code = (
            "import sys\nfrom resnet_fit.cli import main\n"
            f"try: main(['{command}', '--help'])\n"
            "except SystemExit: assert 'paddle' not in sys.modules"
        )
        environment = os.environ | {"PYTHONPATH": str(Path(resnet_fit.__file__).parents[1])}
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, env=environment
        )
