"""Every trick: what it changes is seen, and a run that stops amid it ends as one that did not."""

from __future__ import annotations

import copy

import pytest
from conftest import TINY
from stopping import Stop, stop_after
from test_resume import assert_equal_runs, rows

from resnet_fit import fit, parse_config, resume
from resnet_fit.config.document import dump

TRICKS = {
    "mixup": ["augmentation.mix={mixup: 0.2}"],
    "cutmix": ["augmentation.mix={cutmix: 1.0}"],
    "mixup or cutmix": ["augmentation.mix={mixup: 0.2, cutmix: 1.0, share: 0.8}"],
    "rand_augment": ["augmentation.train=[rand_augment, normalize]"],
    "trivial_augment": ["augmentation.train=[trivial_augment, normalize]"],
    "random_erasing": ["augmentation.train=[normalize, random_erasing: {p: 0.5}]"],
    "alternating flips": ["augmentation.train=[horizontal_flip: {alternate: true}, normalize]"],
    "averaged weights": ["callbacks.weight_average={decay: 0.8}"],
    "stochastic depth": ["model.stochastic_depth=0.5"],
    "progressive resizing": ["augmentation.progressive={start: 4, step: 2}"],
    "flip averaging": ["callbacks.flip_average={}"],
    "rate factors": ["optimizer.lr_factors={backbone: 0.1}"],
    "lamb": ["optimizer={name: lamb, learning_rate: 0.01, weight_decay: 0.02}"],
    "muon": ["optimizer={name: muon, learning_rate: 0.02, head_and_norm_lr: 0.1}"],
    "binary cross entropy": ["loss.name=binary_cross_entropy"],
    "threshold": [
        "loss.name=binary_cross_entropy",
        "loss.target_threshold=0.2",
        "augmentation.mix={cutmix: 1.0}",
    ],
    "class weights": ["loss.class_weights=[1, 2, 1, 1, 3, 1, 1, 1, 1, 0.5]"],
    "balanced sampler": ["data.sampler=balanced", "data.limit=195"],
    "repeated augmentation": ["data.repeats=2"],
    "label smoothing": ["loss.label_smoothing=0.1"],
    "clipping": ["optimizer.clip_norm=0.1"],
    "mixing on the device": ["augmentation={on_device: true, mix: {mixup: 0.2, cutmix: 1.0}}"],
    "fused adam": ["optimizer={name: adam, learning_rate: 0.001, fused: true}"],
}
BASE = copy.deepcopy(TINY)
BASE["data"] |= {"batch_size": 50, "limit": 200}  # 4 steps an epoch


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return fit(parse_config(BASE), tmp_path_factory.mktemp("runs"), "plain").folder


@pytest.mark.parametrize("trick", TRICKS)
def test_it_trains_two_batches_saves_resumes_and_trains_on(plain, tmp_path, monkeypatch, trick):
    config = parse_config(BASE, TRICKS[trick])
    whole = fit(config, tmp_path, "whole").folder
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(Stop):
            fit(parse_config(BASE, [*TRICKS[trick], "checkpoint.every_steps=1"]), tmp_path, "cut")
    assert_equal_runs(resume(tmp_path / "cut").folder, whole)
    assert rows(whole) != rows(plain)


def test_frozen_parts_of_trained_weights(plain, tmp_path, monkeypatch):
    weights = plain / "checkpoints" / "last" / "model.pdparams"
    overrides = [f"model.weights={weights}", "model.freeze=[backbone]"]
    whole = fit(parse_config(BASE, overrides), tmp_path, "whole").folder
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(Stop):
            fit(parse_config(BASE, [*overrides, "checkpoint.every_steps=1"]), tmp_path, "cut")
    assert_equal_runs(resume(tmp_path / "cut").folder, whole)
    tuned = fit(parse_config(BASE, overrides[:1]), tmp_path, "tuned").folder
    assert rows(tuned) != rows(whole)


# --- settings without effect --------------------------------------------------------------

FUTILE = {
    "augmentation.mix={mixup: 0}": r"augmentation\.mix: with mixup 0, cutmix 0 and share 1",
    "augmentation.mix={mixup: 1, share: 0}": r"augmentation\.mix: .* share 0",
    "augmentation.train=[horizontal_flip: {p: 0}, normalize]": r"train\.0: with these options",
    "augmentation.train=[color_jitter, normalize]": r"train\.0: with these options",
    "augmentation.train=[normalize, random_erasing: {p: 0}]": r"train\.1: with these options",
    "callbacks.early_stopping={patience: 2}": r"patience: 2, but this training makes only 2",
    "loss.class_weights=[1, 1, 1, 1, 1, 1, 1, 1, 1, 1]": r"every class has weight 1",
    "optimizer={name: momentum, learning_rate: 1, momentum: 0, nesterov: true}": r"nesterov: with",
    "schedule={name: multi_step, at_epochs: [1, 2, 3.5]}": r"at_epochs: 2, 3\.5 with training",
    "schedule={name: step, every_epochs: 2}": r"every_epochs: 2 with training\.epochs 2",
    "optimizer.lr_factors={fc: 1}": r"optimizer\.lr_factors\.fc: a factor of 1",
    "optimizer.decay_norms_and_biases=true": r"norms_and_biases: without optimizer\.weight_decay",
    "schedule.warmup_start=0.1": r"schedule\.warmup_start: without schedule\.warmup_epochs",
    "data.split_seed=3": r"data\.split_seed: without data\.validation",
}


@pytest.mark.parametrize("assignment", FUTILE)
def test_what_changes_nothing_is_told(assignment):
    with pytest.warns(UserWarning, match=FUTILE[assignment] + ".*changes nothing") as caught:
        parse_config(BASE, [assignment])
    assert len(caught) == 1


def test_what_changes_nothing_together_is_told():
    with pytest.warns(UserWarning, match=r"data\.repeats: nothing in augmentation\.train"):
        parse_config(BASE, ["data.repeats=2", "augmentation.train=[normalize]"])
    alternating = "augmentation.train=[horizontal_flip: {alternate: true}, normalize]"
    with pytest.warns(UserWarning, match=r"data\.repeats: nothing in augmentation\.train"):
        parse_config(BASE, ["data.repeats=2", alternating])
    seldom = ["training.epochs=20", "training.evaluate_every=5"]
    with pytest.warns(UserWarning, match="patience: 4, but this training makes only 4 evaluations"):
        parse_config(BASE, [*seldom, "callbacks.early_stopping={patience: 4}"])
    threshold = ["loss.name=binary_cross_entropy", "loss.target_threshold=0.2"]
    with pytest.warns(UserWarning, match=r"loss\.label_smoothing: .* makes targets 0 or 1"):
        parse_config(BASE, [*threshold, "loss.label_smoothing=0.1"])


def test_the_place_of_what_changes_nothing_is_told(write_yaml):
    from resnet_fit import load_config

    file = write_yaml(dump(BASE | {"augmentation": {"mix": {"mixup": 0.0}}}))
    with pytest.warns(UserWarning, match=rf"^{file}:\d+: augmentation.mix: "):
        load_config(file)


@pytest.mark.parametrize("assignment", ["data.sampler=balanced", "loss.class_weights=balanced"])
def test_balance_of_what_is_balanced_is_told(tiny, assignment):
    from resnet_fit.data.make_loaders import make_loaders

    even = parse_config(tiny, [assignment, "data.limit=100"])
    with pytest.warns(UserWarning, match=r"balanced changes nothing, each class has 10 images"):
        make_loaders(even)


def test_the_device_of_a_cpu_is_told(tiny):
    from resnet_fit.runs.experiment import set_up

    with pytest.warns(UserWarning, match=r"augmentation\.on_device: for a GPU"):
        set_up(parse_config(tiny, ["augmentation.on_device=true"]))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("trick", TRICKS)
def test_what_changes_something_is_not_complained_of(trick):
    parse_config(BASE, TRICKS[trick])
