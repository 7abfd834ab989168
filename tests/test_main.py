"""``python -m resnet_fit``, and a config that comes through a pipe."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from resnet_fit import __version__

SOURCE = Path(__file__).resolve().parents[1] / "src"
SMALL = ["--set", "data.limit=64", "--set", "model={depth: [1, 1], stem: cifar, width: 4}"]


def module(*arguments: object, cwd: Path, text: str | None = None):
    """Another process of the module, whose standard input is ``text``, or closed."""
    return subprocess.run(
        [sys.executable, "-m", "resnet_fit", *map(str, arguments)],
        cwd=cwd,
        input=text,
        stdin=subprocess.DEVNULL if text is None else None,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_module_is_the_command(tmp_path):
    done = module("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"resnet-fit {__version__}\n")
    done = module("--config", "no-such.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("resnet-fit: no-such.yaml: there is no such config file")


def test_the_working_directory_holds_no_modules_of_the_command(tmp_path):
    """Also where the package itself lies in it, as in a checkout, the package is found."""
    (tmp_path / "argparse.py").write_text("raise SystemExit(99)")
    assert module("--version", cwd=tmp_path).returncode == 0
    assert module("--version", cwd=SOURCE).returncode == 0


def test_a_config_through_a_pipe(tmp_path, repository):
    text = (repository / "configs" / "resnet18_digits.yaml").read_text(encoding="utf-8")
    done = module("--config", "-", *SMALL, "--set", "training.epochs=1", cwd=tmp_path, text=text)
    assert (done.returncode, done.stderr) == (0, "")
    (run,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"\d{8}-\d{6}", run.name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: digits.yaml\ntraining: {epochs: 0}\n", "<stdin>:2: training.epochs: expected"),
        ("base: digits.yaml\noptimizer: {name: adam}\n", "<stdin>:2: optimizer.learning_rate: req"),
        ("a: [", "<stdin>:1: not valid YAML: "),
        ("", "<stdin>: expected sections such as 'model:'"),
        ("base: none.yaml\n", "<stdin>:1: base: there is no file "),
    ],
)
def test_mistakes_in_a_pipe_name_its_line(tmp_path, repository, text, message):
    """A base starts from the working directory."""
    config = (repository / "configs" / "resnet18_digits.yaml").read_text(encoding="utf-8")
    (tmp_path / "digits.yaml").write_text(config, encoding="utf-8")
    done = module("check", "--config", "-", cwd=tmp_path, text=text)
    assert done.returncode == 2
    assert done.stderr.startswith(f"resnet-fit: {message}")
    assert len(done.stderr.splitlines()) == 1


def test_a_config_from_the_shells_substitution(tmp_path, repository):
    config = repository / "configs" / "resnet18_digits.yaml"
    (tmp_path / "digits.yaml").write_bytes(config.read_bytes())
    command = (
        f"{sys.executable} -c 'import sys; from resnet_fit.cli import main; sys.exit(main())' "
        "check --config <(echo 'base: digits.yaml') --set data.limit=64"
    )
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
