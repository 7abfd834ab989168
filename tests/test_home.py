"""Users whose home folder is missing or read-only, each run as such a user in its own process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from resnet_fit.errors import UserError
from resnet_fit.home import expand, home, home_with, user_cache

REPOSITORY = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, "-c", "import sys; from resnet_fit.cli import main; sys.exit(main())"]
HOMES = ("HOME", "XDG_CACHE_HOME", "RESNET_FIT_DATA")
UID = 54321  # known to no system
# The interpreter may lie in root's home: to read there is not to write there.
READ_ALL = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]


@pytest.fixture(scope="module")
def as_nobody() -> list[str]:
    """What to put before a command so that a user without name and rights runs it."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root, and with setpriv, can start a process of another user")
    for rights in (READ_ALL, []):
        prefix = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", *rights]
        tried = [*prefix, *COMMAND, "--version"]
        if subprocess.run(tried, capture_output=True, cwd="/", env=environment()).returncode == 0:
            return prefix
    pytest.skip("another user cannot read this interpreter")


def environment(**variables: str) -> dict[str, str]:
    """This process's, without a home."""
    kept = {k: v for k, v in os.environ.items() if k not in HOMES}
    return kept | {"PYTHONPATH": str(REPOSITORY / "src"), "OMP_NUM_THREADS": "1"} | variables


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder in which everyone can write, and a home in which no one can.

    Not below `tmp_path`, which others may not enter.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        place.chmod(0o777)
        for name, mode in (("tmp", 0o777), ("home", 0o555)):
            (place / name).mkdir()
            (place / name).chmod(mode)
        yield place


def run(prefix: list[str], place: Path, *arguments: str, **variables: str):
    return subprocess.run(
        [*prefix, *COMMAND, *arguments],
        env=environment(TMPDIR=str(place / "tmp"), **variables),
        cwd=place,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def experiment(*overrides: str) -> list[str]:
    config = str(REPOSITORY / "configs" / "resnet18_digits.yaml")
    return ["--config", config, *(word for override in overrides for word in ("--set", override))]


def training(*overrides: str) -> list[str]:
    small = ("model.depth=[1, 1]", "model.width=4", "data.limit=64", "training.epochs=1")
    return ["--name", "run", *experiment(*small, *overrides)]


@pytest.mark.parametrize("has_home", [True, False], ids=["read-only home", "no home"])
def test_a_run_needs_no_home(as_nobody, place, has_home):
    variables = {"HOME": str(place / "home")} if has_home else {}
    done = run(as_nobody, place, *training(), **variables)
    assert (done.returncode, done.stderr) == (0, "")
    assert list((place / "runs" / "run" / "visualdl").iterdir())
    assert sorted(p.name for p in place.iterdir()) == ["home", "runs", "tmp"]
    assert not list((place / "tmp").iterdir())


def test_a_static_graph_needs_no_home(as_nobody, place):
    static = training(
        "training.compile=static", "training.backend=paddle", "callbacks.visualdl=null"
    )
    done = run(as_nobody, place, *static)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in place.iterdir()) == ["home", "runs", "tmp"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.name=cifar10"], "cifar10 was not found, and there is no home folder to download"),
        (
            ["data.name=cifar10", "data.path=~/cifar"],
            "--set data.path: ~/cifar: ~ is the home folder",
        ),
    ],
)
def test_what_needs_a_home_says_so(as_nobody, place, overrides, message):
    done = run(as_nobody, place, "check", *experiment(*overrides))
    assert done.returncode == 2
    assert done.stderr.startswith(f"resnet-fit: {message}")
    assert len(done.stderr.splitlines()) == 1


def test_visualdl_is_imported_only_where_it_writes(tmp_path):
    program = (
        "import sys\nfrom resnet_fit.cli import main\nstatus = main()\n"
        "sys.exit(status or 'visualdl' in sys.modules)"
    )
    arguments = [*training("callbacks.visualdl=null"), "--output", str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", program, *arguments], env=environment())
    assert done.returncode == 0


def test_a_home_that_can_be_written_is_used(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "there").mkdir()
    with home_with("there", "new/folder"):
        assert home() == tmp_path


def test_a_home_where_one_thing_cannot_be_made_is_replaced(tmp_path, monkeypatch):
    """A file stands where a folder is to be: true for root, too."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "there").touch()
    with home_with("there/folder", "new"):
        other = home()
        assert other is not None
        assert other.is_dir()
        assert other != tmp_path
    assert not other.exists()
    assert os.environ["HOME"] == str(tmp_path)


def test_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert expand("~/photos") == tmp_path / "photos"
    assert expand("photos/~") == Path("photos/~")
    assert expand("~no-such-user/photos") == Path("~no-such-user/photos")
    assert user_cache() == tmp_path / ".cache" / "resnet-fit"


def test_paths_of_a_user_without_a_home(monkeypatch):
    monkeypatch.setattr(os.path, "expanduser", os.fspath)  # as it is for an unknown user
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert (home(), user_cache()) == (None, None)
    assert expand("photos") == Path("photos")
    with pytest.raises(UserError, match=r"^~/photos: ~ is the home folder, and this user has none"):
        expand("~/photos")
