"""What `auto` becomes on a GPU, in one place; on a CPU it is what a run always did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import paddle
import pytest
from pretended import let_precision_pass, let_runs_see_a_gpu

from resnet_fit import densenet, fit, load_config, parse_config, resnet, resume
from resnet_fit.backends import choose_backend
from resnet_fit.errors import UserError
from resnet_fit.runs.automatic import PLACES, Execution, execution, resolve_auto
from resnet_fit.runs.experiment import set_up
from resnet_fit.runs.processes import check_processes

HALF = "training.precision=float16"
EXPLICIT = {
    "training.backend": "paddle",
    "training.compile": "static",
    "optimizer.fused": "false",
    "augmentation.on_device": "false",
}


@pytest.fixture
def gpu(monkeypatch):
    let_precision_pass(monkeypatch)
    let_runs_see_a_gpu(monkeypatch)
    return monkeypatch


def taken(config: Any, device: str, network: Any = None) -> Execution:
    resolved = resolve_auto(config, device)
    training = resolved.training
    compiled = training.compile != "off"
    return execution(
        resolved,
        choose_backend(training.backend, device, compiled, network, training.precision),
    )


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_takes_all_that_is_known_to_be_right(tiny, precision):
    config = parse_config(tiny, [f"training.precision={precision}"])
    assert taken(config, "gpu:0") == Execution("channels_last", "off", True, True)


def test_float32_keeps_paddles_layout(tiny):
    assert taken(parse_config(tiny), "gpu:1") == Execution("paddle", "off", True, False)


def test_a_cpu_is_as_it_was(tiny):
    expected = Execution(choose_backend("auto", "cpu"), "off", False, False)
    assert taken(parse_config(tiny), "cpu") == expected
    assert taken(parse_config(tiny, ["training.precision=bfloat16"]), "cpu") == expected


@pytest.mark.parametrize("key", EXPLICIT)
def test_what_is_set_wins(tiny, key):
    config = parse_config(tiny, [HALF, f"{key}={EXPLICIT[key]}"])
    name = key.partition(".")[2]
    found = taken(config, "gpu:0").to_dict()
    assert str(found.pop(name)).lower() == EXPLICIT[key]
    assert found.items() <= Execution("channels_last", "off", True, True).to_dict().items()


@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb", "muon", "rmsprop"])
def test_optimizers_without_fused_steps_have_none(tiny, name):
    tiny["optimizer"] = {"name": name, "learning_rate": 0.1, "weight_decay": 0.01}
    if name == "muon":
        tiny["optimizer"]["head_and_norm_lr"] = 0.1
    assert not taken(parse_config(tiny, [HALF]), "gpu:0").fused


def test_a_network_without_our_layers_keeps_paddles_layout(tiny):
    config = parse_config(tiny, [HALF])
    assert taken(config, "gpu:0", paddle.nn.Linear(2, 2)).backend == "paddle"
    for network in (resnet(8, 10, "cifar3"), densenet([1, 1], 10, "cifar")):
        assert taken(config, "gpu:0", network).backend == "channels_last"


def test_several_processes_may_leave_it_to_auto(tiny):
    check_processes(parse_config(tiny, ["training.accumulate=2"]), 2)
    with pytest.raises(UserError, match=r"training\.compile: static works in one process alone"):
        check_processes(parse_config(tiny, ["training.accumulate=2", "training.compile=static"]), 2)


@pytest.mark.parametrize("key", ["optimizer.fused", "augmentation.on_device"])
def test_other_values_are_told_in_one_line(tiny, key):
    with pytest.raises(UserError) as told:
        parse_config(tiny, [f"{key}=maybe"])
    assert str(told.value) == f"--set {key}: expected true, false or auto, received 'maybe'"


# --- whole runs ---------------------------------------------------------------------------


def environment(run: Any) -> dict[str, Any]:
    return json.loads((Path(run.folder) / "environment.json").read_text())


def execution_of(environment: dict[str, Any]) -> Execution:
    return Execution(**{key: environment[key] for key in Execution.__dataclass_fields__})


@pytest.fixture
def mixed(tiny):
    """All at once: mixing, frozen layers, averages, sizes."""
    tiny["augmentation"] |= {"mix": {"cutmix": 1.0}, "progressive": {"start": 6, "step": 2}}
    tiny["model"] |= {"stochastic_depth": 0.2}
    tiny["data"] |= {"limit": 200, "batch_size": 50}
    tiny["callbacks"] = {"weight_average": {"decay": 0.9}, "flip_average": {}}
    return tiny


def test_a_run_says_and_keeps_what_it_took(mixed, tmp_path, gpu, capsys):
    run = fit(parse_config(mixed, [HALF]), tmp_path, "run")
    assert execution_of(environment(run)) == Execution("channels_last", "off", True, True)
    said = " ".join(capsys.readouterr().out.split())
    assert "gpu:0, channels_last backend, fused steps, augmentation on the device, float16" in said
    kept = load_config(run.folder / "config.yaml").model_dump()
    assert [kept[section][key] for key, section in PLACES.items()] == ["auto"] * 4
    by_hand = [
        "training.backend=channels_last",
        "training.compile=off",
        "optimizer.fused=true",
        "augmentation.on_device=true",
    ]
    same = fit(parse_config(mixed, [HALF, *by_hand]), tmp_path, "by-hand")
    assert same.summary["last"]["train"] == run.summary["last"]["train"]
    assert same.summary["last"]["eval"] == run.summary["last"]["eval"]


def test_a_run_goes_on_by_the_means_it_took(mixed, tmp_path, gpu):
    run = fit(parse_config(mixed, [HALF]), tmp_path, "run")
    earlier = environment(run) | {"backend": "paddle", "fused": False, "on_device": False}
    (run.folder / "environment.json").write_text(json.dumps(earlier))
    longer = resume(run.folder, ["training.epochs=3"])
    assert execution_of(environment(longer)) == Execution("paddle", "off", False, False)
    chosen = resume(run.folder, ["training.epochs=4", "training.backend=channels_last"])
    assert execution_of(environment(chosen)) == Execution("channels_last", "off", False, False)


def test_on_another_kind_of_device_it_chooses_anew(tiny, tmp_path, gpu):
    run = fit(parse_config(tiny), tmp_path, "run")
    assert execution_of(environment(run)) == Execution("paddle", "off", True, False)
    gpu.undo()
    longer = resume(run.folder, ["training.epochs=3"])
    expected = Execution(choose_backend("auto", "cpu"), "off", False, False)
    assert execution_of(environment(longer)) == expected


@pytest.mark.parametrize("text", ["", "[]", '{"device": "gpu:0"}', None])
def test_a_run_whose_record_is_lost_chooses_anew(tiny, tmp_path, gpu, text):
    run = fit(parse_config(tiny, [HALF, "data.limit=100"]), tmp_path, "run")
    file = run.folder / "environment.json"
    file.unlink() if text is None else file.write_text(text)
    longer = resume(run.folder, ["training.epochs=3"])
    assert execution_of(environment(longer)) == Execution("channels_last", "off", True, True)


class Unused(paddle.nn.Layer):
    """A user's network, of which a part is never called."""

    def __init__(self):
        super().__init__()
        self.flatten = paddle.nn.Flatten()
        self.never = paddle.nn.Linear(4, 4)
        self.last = paddle.nn.Linear(64, 10)

    def forward(self, images):
        return self.last(self.flatten(images))


def test_a_network_of_which_a_part_is_not_used_trains(tiny, tmp_path, gpu):
    tiny["model"] = {"name": "given"}
    runs = []
    for fused in ("auto", "false"):
        paddle.seed(0)
        config = parse_config(tiny, [HALF, f"optimizer.fused={fused}"])
        runs.append(fit(config, tmp_path, f"run-{fused}", network=Unused()))
    assert execution_of(environment(runs[0])) == Execution("paddle", "off", True, True)
    assert runs[0].summary["last"]["train"] == runs[1].summary["last"]["train"]


def test_frozen_layers_and_rates_train(tiny, tmp_path, gpu):
    first = fit(parse_config(tiny), tmp_path, "first")
    tiny["model"] |= {"weights": str(first.folder), "freeze": ["layer1"]}
    tiny["optimizer"] |= {"lr_factors": {"layer2": 0.5}, "clip_norm": 1.0}
    run = fit(parse_config(tiny, [HALF]), tmp_path, "run")
    assert environment(run)["fused"] is True


def test_nothing_is_warned_of_on_a_gpu_or_a_cpu(tiny, gpu, recwarn):
    for overrides in ([HALF], []):
        set_up(parse_config(tiny, overrides)).loaders.close()
    gpu.undo()
    set_up(parse_config(tiny)).loaders.close()
    assert not [w for w in recwarn if "on_device" in str(w.message)]
