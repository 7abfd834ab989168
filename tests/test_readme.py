"""README.md says nothing that is not so: its code runs, its commands load, its paths are there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY

import resnet_fit
from resnet_fit import load_config, parse_config
from resnet_fit.cli import COMMANDS
from resnet_fit.data import augment, transforms
from resnet_fit.runs.config import Config
from resnet_fit.runs.resuming import CHANGEABLE

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
PROSE = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
QUOTED = re.findall(r"`([^`\n]+)`", PROSE)
SHELL = [line for kind, text in BLOCKS if kind == "bash" for line in text.splitlines()]
COMMAND_LINES = [
    part.strip().removeprefix(".venv/bin/")
    for line in [*SHELL, *QUOTED]
    for part in line.split("&&")
    if "resnet-fit " in part
]

# What a user has or gets: these paths are not the repository's.
ELSEWHERE = ("runs/", "photos/", "checkpoints/", "visualdl/", "~/", "/", ".venv/")


def blocks(kind: str) -> list[str]:
    return [text for found, text in BLOCKS if found == kind]


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_python_block_runs(number, tmp_path):
    (tmp_path / "configs").symlink_to(REPOSITORY / "configs")
    done = subprocess.run(
        [sys.executable, "-c", blocks("python")[number]],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(resnet_fit.__file__).parents[1])},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "epoch 1/1" in done.stdout


def test_there_are_blocks_and_commands_to_check():
    assert "paddle.Model(network)" in blocks("python")[0]
    assert len(COMMAND_LINES) > 15
    assert any(line.startswith("resnet-fit view") for line in COMMAND_LINES)


@pytest.mark.parametrize("line", dict.fromkeys(COMMAND_LINES))
def test_command_would_start(line):
    program, *arguments = shlex.split(line)
    assert program == "resnet-fit"
    if not arguments[0].startswith("-"):
        assert arguments[0] in COMMANDS
        return
    values: dict[str, list[str]] = {}
    for option, value in zip(arguments[::2], arguments[1::2], strict=True):
        values.setdefault(option, []).append(value)
    overrides = values.pop("--set", [])
    if "--resume" in values:
        assert all(o.partition("=")[0] in CHANGEABLE for o in overrides)
        return
    (config,) = values.pop("--config")
    assert not values
    if not config.startswith(ELSEWHERE):
        load_config(REPOSITORY / config, overrides)


@pytest.mark.parametrize("text", [t for t in QUOTED if t.startswith("--set ") and "KEY" not in t])
def test_override_in_the_text_is_taken(text):
    load_config(REPOSITORY / "configs/resnet18_cifar.yaml", [shlex.split(text)[1]])


@pytest.mark.parametrize("text", blocks("yaml"))
def test_yaml_block_is_a_config(text, tmp_path):
    """A whole config with ``base``, or sections to lay over one that is there."""
    if not yaml.safe_load(text).get("base"):
        text = f"base: resnet18_cifar.yaml\n{text}"
    file = tmp_path / "experiment.yaml"
    file.write_text(text.replace("base: ", f"base: {REPOSITORY}/configs/"), encoding="utf-8")
    load_config(file)


def test_every_setting_that_may_change_is_named():
    part = PROSE.partition("## Stopping and going on")[2].partition("\n## ")[0]
    (listed,) = re.findall(r"settings may change[^:]*:(.*?)\.\n", part, flags=re.DOTALL)
    assert tuple(re.findall(r"`([^`]+)`", listed)) == CHANGEABLE


def looks_like_a_path(text: str) -> bool:
    if re.search(r"[^\w./-]", text) or text.startswith(ELSEWHERE):
        return False
    return "/" in text or text.endswith((".py", ".toml", ".md"))


@pytest.mark.parametrize("path", dict.fromkeys(t for t in QUOTED if looks_like_a_path(t)))
def test_path_in_the_text_exists(path):
    assert (REPOSITORY / path).exists()


def listing() -> list[str]:
    """The paths of the folder listing: two spaces deeper is inside the folder above."""
    (text,) = (block for block in blocks("") if "src/resnet_fit/" in block)
    paths, top = [], ""
    for line in text.splitlines():
        name = line.split()[0]
        inside = line.startswith("  ")
        top = top if inside else name
        paths.append(top + name if inside else name)
    return paths


def test_folder_listing_is_the_table_of_contents():
    paths = listing()
    for path in paths:
        assert (REPOSITORY / path).exists(), path
        assert path.endswith("/") == (REPOSITORY / path).is_dir(), path
    packages = (REPOSITORY / "src/resnet_fit").glob("*/__init__.py")
    assert {f"src/resnet_fit/{p.parent.name}/" for p in packages} <= set(paths)


def test_tables_name_every_section_and_operation():
    for section in Config.model_fields:
        assert f"| `{section}` |" in README
    for operation in {**augment.OPERATIONS, **transforms.OPERATIONS}:
        assert f"`{operation}`" in README


def test_keys_in_the_sections_table_exist(tiny):
    """The last column of the table, each name a key of its section in some kind of it."""
    kinds: dict[str, list[dict[str, Any]]] = {
        "model": [{"depth": 18}, {"name": "densenet", "depth": 121}],
        "optimizer": [{"name": "momentum", "learning_rate": 0.1}],
        "schedule": [
            {"name": "one_cycle"},
            {"name": "step", "every_epochs": 1},
            {"name": "multi_step", "at_epochs": [1]},
        ],
    }
    for section, row in re.findall(r"^\| `(\w+)` \|.*\|(.*)\|$", README, flags=re.MULTILINE):
        if section not in Config.model_fields:
            continue
        keys: set[str] = set()
        for kind in kinds.get(section, [tiny.get(section, {})]):
            resolved = getattr(parse_config({**tiny, section: kind}), section)
            keys |= set(type(resolved).model_fields)
        named = re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", row))
        assert set(named) <= keys, section


def test_continuous_integration_runs_the_two_commands():
    script = (REPOSITORY / ".ci/run").read_text(encoding="utf-8")
    first, second = [line for line in SHELL if line.startswith("python3 -m venv")]
    assert first.endswith("resnet-fit --config configs/resnet18_digits.yaml")
    assert second.endswith(".venv/bin/pytest")
    for command in (first, second):
        assert f'\nstep "{command}"\n' in script
