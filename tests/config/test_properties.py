"""Whatever stands in a config, the answer is an experiment or a clear error."""

from __future__ import annotations

import contextlib
import copy
from pathlib import Path
from typing import Any

import yaml
from conftest import REPOSITORY, TINY
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resnet_fit.errors import UserError
from resnet_fit.runs.config import Config, dump_config, load_config, parse_config

MANY = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SEEDS = [TINY, *(load_config(f).model_dump() for f in sorted(REPOSITORY.glob("configs/*.yaml")))]


def keys_of(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value) | set().union(*map(keys_of, value.values()))
    return set().union(*map(keys_of, value)) if isinstance(value, list) else set()


KEYS = st.sampled_from(sorted(set().union(*map(keys_of, SEEDS)))) | st.text(max_size=6)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-1, 20)
    | st.floats()
    | st.floats(0, 1)
    | st.text(max_size=8)
    | st.dates()
    | st.sampled_from(
        ["adamw", "cosine", "one_cycle", "folder", "cifar10", "skip", "float16", "1e-3"]
    )
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)

# Other values of the same kind, many of them valid.
VARIED = {bool: st.booleans(), int: st.integers(1, 40), float: st.floats(0.01, 0.9)}


@st.composite
def changed(draw: st.DrawFn) -> dict[str, Any]:
    """A good config with one to three values changed, added, or left out."""
    config = copy.deepcopy(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 3))):
        place: Any = config
        while True:
            choices = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not choices:
                break
            key = draw(st.sampled_from(choices))
            if isinstance(place[key], dict | list) and place[key] and draw(st.booleans()):
                place = place[key]
                continue
            action = draw(st.sampled_from([*["vary"] * 6, "change", "drop", "add"]))
            if action == "drop":
                del place[key]
            elif action == "vary":
                place[key] = draw(VARIED.get(type(place[key]), st.just(place[key])))
            elif action == "add" and isinstance(place, dict):
                place[draw(KEYS)] = draw(VALUES)
            else:
                place[key] = draw(VALUES)
            break
    return config


def read(file: Path) -> Config | None:
    """The config in a file, or None where an error says clearly why there is none."""
    try:
        return load_config(file)
    except UserError as error:
        lines = str(error).splitlines()
        assert lines
        assert all(line.startswith(str(file)) for line in lines), lines
        return None


@MANY
@given(text=st.text() | st.binary())
def test_any_text(text: str | bytes, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    assert read(file) is None


@MANY
@given(text=st.text("{}[]:,-&*!|>'\"%@`?# \n\tab1.", max_size=40))
def test_any_yaml_punctuation(text: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text, encoding="utf-8")
    assert read(file) is None


@MANY
@given(config=changed())
def test_any_change_to_a_good_config(config: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    found = read(file)
    if found is not None:
        file.write_text(dump_config(found), encoding="utf-8")
        assert load_config(file) == found


@MANY
@given(assignment=st.builds("{}={}".format, KEYS, SCALARS) | st.text(max_size=20))
def test_any_override(assignment: str) -> None:
    with contextlib.suppress(UserError):
        assert parse_config(TINY, [assignment])


@MANY
@given(
    depth=st.sampled_from([18, 34, 50, [1, 1], [2, 1, 3]]),
    smoothing=st.floats(0, 0.99),
    rate=st.floats(1e-9, 1e9),
    epochs=st.integers(1, 10**6),
    path=st.text(min_size=1),
    seed=st.integers(0, 2**31 - 1),
)
def test_any_valid_values_survive_dump_and_load(
    depth: Any, smoothing: float, rate: float, epochs: int, path: str, seed: int, tmp_path: Path
) -> None:
    config = copy.deepcopy(TINY)
    config["model"] = {"depth": depth, "stem": "cifar"}
    config["data"] = {"name": "cifar10", "path": path}
    config["optimizer"]["learning_rate"] = rate
    config["training"] = {"epochs": epochs, "seed": seed}
    config["loss"] = {"label_smoothing": smoothing}
    found = parse_config(config)
    file = tmp_path / "config.yaml"
    file.write_text(dump_config(found), encoding="utf-8")
    assert load_config(file) == found


def test_the_generator_makes_good_ones_too() -> None:
    """Else the property of dump and load would be tested on nothing."""
    good = [0]

    @settings(max_examples=100, deadline=None, database=None)
    @given(config=changed())
    def count(config: dict[str, Any]) -> None:
        try:
            parse_config(config)
            good[0] += 1
        except UserError:
            pass

    count()
    assert good[0] >= 15, f"only {good[0]} of 100 were good"
