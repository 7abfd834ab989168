"""Channels last and a static graph compute what Paddle's own operations do, one by one."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import paddle
import pytest

from resnet_fit import densenet, fit, parse_config, resnet, resume
from resnet_fit.backends import (
    check_cinn,
    choose_backend,
    compile_forward,
    onednn_problem,
    use_backend,
)
from resnet_fit.errors import UserError
from resnet_fit.training.objectives import CrossEntropy

NETWORKS: dict[str, dict[str, Any]] = {
    "basic, projection": {"depth": [1, 1], "stem": "cifar", "width": 8},
    "basic, zero-pad": {"depth": 8, "stem": "cifar3", "shortcut": "zero-pad"},
    "plain": {"depth": 8, "stem": "cifar3", "shortcut": "none"},
    "dense": {"name": "densenet", "depth": [2, 1], "stem": "cifar", "growth": 6},
    "bottleneck, max pool": {"depth": [1, 1], "block": "bottleneck", "width": 8},
}


def step(network, images):
    """Logits, gradients, and the state after one training step."""
    network.train()
    logits = network(images)
    CrossEntropy()(logits, paddle.to_tensor([0, 1, 2, 3])).backward()
    named = network.named_parameters()
    gradients = {n: p.grad.numpy() for n, p in named if not p.stop_gradient}
    network.eval()
    return {"logits": logits.numpy(), "evaluated": network(images).numpy()} | gradients


def read_history(run):
    return [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.filterwarnings("ignore:stem='imagenet'")
@pytest.mark.parametrize(
    "way", ["channels_last", "static", "static channels_last", "static channels_last fused"]
)
@pytest.mark.parametrize("kind", NETWORKS)
def test_equals_the_framework_engine(kind, way):
    paddle.seed(0)
    options = dict(NETWORKS[kind])
    build = {"resnet": resnet, "densenet": densenet}[options.pop("name", "resnet")]
    reference, network = (build(num_classes=5, **options) for _ in range(2))
    network.set_state_dict(reference.state_dict())
    if "channels_last" in way:
        use_backend(network, "channels_last")
    if "static" in way:
        compile_forward(network, fuse_norms="fused" in way)
    images = paddle.to_tensor(
        np.random.default_rng(0).normal(size=(4, 3, 32, 32)).astype("float32")
    )
    expected, ours = step(reference, images), step(network, images)
    assert expected.keys() == ours.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-3, atol=2e-5, err_msg=name)
    for name, value in reference.state_dict().items():
        theirs = network.state_dict()[name].numpy()
        np.testing.assert_allclose(theirs, value.numpy(), rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    "overrides", [["training.backend=channels_last"], ["training.compile=static"]]
)
def test_a_run_goes_on_in_another_engine(tiny, tmp_path, overrides):
    tiny["callbacks"] = {"weight_average": {"decay": 0.9}, "flip_average": {}}
    run = fit(parse_config(tiny, overrides), tmp_path, "run")
    reference = fit(parse_config(tiny, ["training.backend=paddle"]), tmp_path, "reference")
    ours, theirs = (
        [row["train"]["loss"] for row in read_history(each)] for each in (run, reference)
    )
    np.testing.assert_allclose(ours, theirs, rtol=0.02)
    longer = ["training.epochs=3", "training.backend=auto", "training.compile=off"]
    assert resume(run.folder, longer).summary["epochs"] == 3


def test_auto_takes_no_engine_without_a_static_form():
    assert choose_backend("auto", "cpu", compiled=True) == "paddle"
    assert choose_backend("auto", "gpu:0") == "paddle"


def test_an_engine_that_does_not_exist_is_refused():
    network = resnet(8, 10, "cifar3")
    with pytest.raises(UserError, match=r"backend='onedn': choose .* Did you mean 'onednn'"):
        use_backend(network, "onedn")
    with pytest.raises(UserError, match="dtype='bf16': choose float32 or bfloat16"):
        use_backend(network, "onednn", "bf16")
    with pytest.raises(UserError, match="backend='static': choose auto, paddle"):
        choose_backend("static", "cpu")


def test_bfloat16_is_refused_where_the_processor_has_none(monkeypatch):
    monkeypatch.setattr("resnet_fit.backends.has_bfloat16", lambda: False)
    with pytest.raises(UserError, match="dtype='bfloat16': this processor has no bfloat16"):
        use_backend(resnet(8, 10, "cifar3"), "onednn", "bfloat16")


def test_a_compiler_that_would_not_be_used_is_refused(tiny, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"training\.compile: received cinn, .* use static"):
        fit(parse_config(tiny, ["training.compile=cinn"]), tmp_path, "run")
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(paddle, "is_compiled_with_cinn", lambda: False)
    with pytest.raises(UserError, match="the installed Paddle was built without it"):
        check_cinn("gpu:0")


def test_a_network_of_others_computes_by_paddle_alone():
    use_backend(paddle.nn.Linear(2, 2), "paddle")
    with pytest.raises(UserError, match="Linear has no layer of this library"):
        use_backend(paddle.nn.Linear(2, 2), "channels_last")


@pytest.mark.skipif(onednn_problem() is not None, reason="no onednn backend here")
def test_onednn_is_not_taken_where_paddle_copies_views():
    paddle.set_flags({"FLAGS_use_stride_kernel": False})
    try:
        assert choose_backend("auto", "cpu") == "paddle"
        with pytest.raises(UserError, match="cannot be used: FLAGS_use_stride_kernel is off"):
            use_backend(resnet(8, 10, "cifar3"), "onednn")
    finally:
        paddle.set_flags({"FLAGS_use_stride_kernel": True})
