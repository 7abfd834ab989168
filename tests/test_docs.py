"""The README and the pages say nothing that is not so: code runs, commands load, paths exist."""

from __future__ import annotations

import importlib
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
import pytest
import yaml
from conftest import REPOSITORY

import resnet_fit
from resnet_fit import load_config
from resnet_fit.checkpoints.files import WEIGHTS
from resnet_fit.cli import COMMANDS
from resnet_fit.commands.parser import Parser
from resnet_fit.config.registry import CHOICES
from resnet_fit.errors import UserError
from resnet_fit.networks.weights import read_weights
from resnet_fit.runs.config import Config
from resnet_fit.runs.resuming import CHANGEABLE

PAGES = [REPOSITORY / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")]
PAGES += sorted((REPOSITORY / "docs").glob("*.md"))


class Block(NamedTuple):
    page: str
    kind: str
    file: str  # what it is to be saved as, where its first line says so
    text: str


def read_blocks(page: Path) -> list[Block]:
    found = re.findall(r"^```(\w*) ?(\S*)\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)
    return [Block(page.stem, *each) for each in found]


BLOCKS = [block for page in PAGES for block in read_blocks(page)]
PROSE = {
    p.stem: re.sub(r"^```.*?^```$", "", p.read_text("utf-8"), flags=re.M | re.S) for p in PAGES
}
QUOTED = [text for prose in PROSE.values() for text in re.findall(r"`([^`\n]+)`", prose)]
SHELL = [line for block in BLOCKS if block.kind == "bash" for line in block.text.splitlines()]


def command_lines(texts: list[str]) -> list[str]:
    return [
        part.strip().removeprefix(".venv/bin/")
        for line in texts
        for part in re.split(r"&&| \| ", line)
        if "resnet-fit " in part
    ]


SHELL_COMMANDS = command_lines(SHELL)
COMMAND_LINES = [*SHELL_COMMANDS, *command_lines(QUOTED)]

# What a user has or gets: these paths are not the repository's.
ELSEWHERE = ("runs/", "photos/", "checkpoints/", "visualdl/", "~/", "/", ".venv/")


def start(arguments: list[str], folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(resnet_fit.__file__).parents[1])},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(arguments: list[str], folder: Path) -> str:
    process = start(arguments, folder)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


PYTHON = [block for block in BLOCKS if block.kind == "python" and not block.file]


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.page)
def test_python_block_runs(block, tmp_path):
    (tmp_path / "configs").symlink_to(REPOSITORY / "configs")
    assert "epoch 1/1" in run(["-c", block.text], tmp_path)


def test_there_are_blocks_and_commands_to_check():
    assert "paddle.Model(resnet(depth=50))" in PYTHON[0].text
    assert len(PYTHON) >= 4
    assert len(COMMAND_LINES) > 15
    assert any(line.startswith("resnet-fit view") for line in COMMAND_LINES)


class Stopped(Exception):
    """Carries the parser of a command that was about to use it."""


def parser_of(command: str) -> Parser:
    """The parser of a command."""

    def stop(parser: Parser, _: Sequence[str]) -> NoReturn:
        raise Stopped(parser)

    module = importlib.import_module(f"resnet_fit.commands.{command.replace('-', '_')}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Parser, "parse_args", stop)
        with pytest.raises(Stopped) as stopped:
            module.run([], {}) if command == "train" else module.run([])
    return stopped.value.args[0]


@pytest.mark.parametrize("line", dict.fromkeys(COMMAND_LINES))
def test_command_would_start(line, capsys):
    program, *arguments = shlex.split(line.partition(" > ")[0])
    assert program == "resnet-fit"
    command = "" if arguments[0].startswith("-") else arguments.pop(0)
    assert command in ("", *COMMANDS)
    parser = parser_of(command or "train")
    options = [word.partition("=")[0] for word in arguments if word.startswith("--")]
    assert set(options) <= set(re.findall(r"--[\w-]+", parser.format_help()))
    if arguments == ["--help"]:
        return
    try:
        given = parser.parse_args(arguments)
    except UserError:
        if command and len(options) == len(arguments) and line not in SHELL_COMMANDS:
            return  # words of a text that name a command, or an option of it
        raise
    if command == "list":
        assert resnet_fit.cli.main([command, *arguments]) == 0
        assert capsys.readouterr().out
    if getattr(given, "resume", None) is not None:
        assert all(o.partition("=")[0] in CHANGEABLE for o in given.overrides)
        return
    config = getattr(given, "config", None)
    if config is not None and not config.startswith(ELSEWHERE) and config != "-":
        named = config if "/" not in config else REPOSITORY / config
        load_config(named, given.overrides)


@pytest.mark.parametrize("text", [t for t in QUOTED if t.startswith("--set ") and "KEY" not in t])
def test_override_in_the_text_is_taken(text):
    config = "resnet18_folder" if "data.path" in text else "resnet18_cifar"
    load_config(config, [shlex.split(text)[1]])


YAML = [block for block in BLOCKS if block.kind == "yaml" and not block.file]


@pytest.mark.parametrize("block", YAML, ids=lambda block: block.page)
def test_yaml_block_is_a_config(block, tmp_path):
    """A whole config with ``base``, or sections to lay over one that is there."""
    text = block.text
    if not yaml.safe_load(text).get("base"):
        text = f"base: resnet18_cifar.yaml\n{text}"
    file = tmp_path / "experiment.yaml"
    file.write_text(text.replace("base: ", f"base: {REPOSITORY}/configs/"), encoding="utf-8")
    load_config(file)


def test_every_setting_that_may_change_is_named():
    (listed,) = re.findall(r"settings may change[^:]*:(.*?)\.\n", PROSE["runs"], flags=re.DOTALL)
    assert tuple(re.findall(r"`([^`]+)`", listed)) == CHANGEABLE


def looks_like_a_path(text: str) -> bool:
    if re.search(r"[^\w./-]", text) or text.startswith(ELSEWHERE):
        return False
    return text.count("/") > 0 and "." in text.rpartition("/")[2]


@pytest.mark.parametrize("path", dict.fromkeys(t for t in QUOTED if looks_like_a_path(t)))
def test_path_in_the_text_exists(path):
    places = (REPOSITORY, REPOSITORY / "src/resnet_fit", REPOSITORY / "docs")
    assert any((place / path).exists() for place in places)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_every_page_is_in_the_readme():
    linked = set(re.findall(r"\]\(docs/(\w[\w-]*)\.md\)", PAGES[0].read_text("utf-8")))
    assert linked == {page.stem for page in (REPOSITORY / "docs").glob("*.md")}


def test_the_readme_takes_two_screens():
    assert len(PAGES[0].read_text("utf-8").splitlines()) <= 100


def test_the_architecture_page_lists_every_package_and_module():
    (tree,) = (b.text for b in BLOCKS if b.page == "architecture" and "networks/" in b.text)
    package = REPOSITORY / "src/resnet_fit"
    named = set(re.findall(r"^([\w/.]+?)(?:/|\.py)? ", tree + " ", re.M))
    found = {p.parent.name for p in package.glob("*/__init__.py")}
    found |= {p.stem for p in package.glob("*.py") if not p.stem.startswith("__")}
    assert {name.removesuffix("/") for name in named} | set(re.findall(r"(\w+)\.py", tree)) == found


def test_the_table_of_sections_is_whole():
    prose = PROSE["configs"]
    for section in Config.__dataclass_fields__:
        assert f"| `{section}` |" in prose
    from resnet_fit.config.registry import parts

    for section, choice in CHOICES.items():
        (row,) = re.findall(rf"^\| `{section}` \|.*$", prose, re.M)
        for name in parts(choice.kind):
            if name != "given" and parts(choice.kind)[name].__module__.startswith("resnet_fit."):
                assert f"`{name}`" in row, name


def test_continuous_integration_runs_the_two_commands():
    script = (REPOSITORY / ".ci/run").read_text(encoding="utf-8")
    readme = [b.text for b in BLOCKS if b.page == "README"]
    first, second = [t.strip() for t in readme if t.startswith("python3 -m venv")]
    assert first.endswith("resnet-fit --config configs/resnet18_digits.yaml")
    assert second.endswith(".venv/bin/pytest")
    for command in (first, second):
        assert f'\nstep "{command}"\n' in script


# --- the page on parts of a user's own ------------------------------------------------


@pytest.fixture
def own_parts(tmp_path):
    """The example's files, where its commands are typed; a checkpoint after every third step."""
    for block in BLOCKS:
        if block.page == "extending" and block.file:
            (tmp_path / block.file).write_text(block.text, encoding="utf-8")
    return tmp_path


def test_the_commands_of_the_example_run(own_parts):
    (commands,) = (b.text for b in BLOCKS if b.page == "extending" and b.kind == "bash")
    outputs = [run(line.split()[1:], own_parts) for line in commands.splitlines()]
    assert "steps_file" in outputs[-1]
    rows = (own_parts / "runs/mine/metrics.jsonl").read_text().splitlines()
    assert len(rows) == 6
    assert json.loads(rows[-1])["eval"]["top1"] > 0.8
    assert (own_parts / "runs/mine/count.txt").read_text() == f"{6 * 300}\n"


def test_the_example_killed_at_any_step_ends_as_if_it_had_not_been(own_parts):
    arguments = ["my_train.py", "--config", "my_config.yaml", "--set", "checkpoint.every_steps=1"]
    run([*arguments, "--name", "whole"], own_parts)
    killed = own_parts / "runs/killed"
    process = start([*arguments, "--name", "killed"], own_parts)
    seen = random.Random(time.time()).randrange(20, 40 * 20, 20)  # images, of 60 steps
    count, first = killed / "count.txt", killed / "checkpoints/last"
    while not first.exists() or int(count.read_text() or 0) < seen:
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (killed / "summary.json").exists()
    run(["my_train.py", "--resume", "runs/killed"], own_parts)
    whole = own_parts / "runs/whole"
    assert count.read_text() == (whole / "count.txt").read_text()
    ours, theirs = (read_weights(f / "checkpoints/last" / WEIGHTS) for f in (killed, whole))
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    assert figures(killed) == figures(whole)


def figures(folder: Path) -> list[dict[str, float]]:
    rows = [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["train"] | {f"eval {k}": v for k, v in row["eval"].items()} for row in rows]


def test_a_mistake_is_told_as_the_page_says(own_parts):
    (said,) = re.findall(r"is one line, as `(.*?)`\.", PROSE["extending"], re.S)
    file = own_parts / "my_config.yaml"
    file.write_text(file.read_text().replace("every_epochs", "every_epoch"))
    process = start(["my_train.py", "--config", "my_config.yaml"], own_parts)
    assert " ".join(said.split()).removesuffix("?") in process.communicate()[1]
    assert process.returncode == 2
