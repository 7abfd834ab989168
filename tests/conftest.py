"""What several tests start from."""

from __future__ import annotations

import copy
import functools
import http.server
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from resnet_fit.machine import has_bfloat16
from resnet_fit.runtime import prepare_environment

REPOSITORY = Path(__file__).resolve().parents[1]

# A real experiment of seconds: a net of one block per stage on 8x8 digits.
TINY: dict[str, Any] = {
    "model": {"depth": [1, 1], "stem": "cifar", "width": 8},
    "data": {"name": "digits", "batch_size": 64},
    "augmentation": {"train": [{"random_crop": {"padding": 1}}, "normalize"]},
    "optimizer": {"name": "momentum", "learning_rate": 0.1},
    "schedule": {"name": "one_cycle"},
    "training": {"epochs": 2},
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--gpu-device",
        default="gpu",
        choices=("gpu", "cpu"),
        help="what tests marked gpu compute on; a CPU poses as one, to test these tests",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Import Paddle before any test does, each of pytest's workers with cores of its own."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is None and config.getoption("numprocesses", None):
        return  # this process only hands tests to workers, which inherit its environment
    if worker is not None and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        workers = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        os.sched_setaffinity(0, cores[int(worker[2:]) % len(cores) :: workers][:2])
    # A shell starts what it runs in the background with these ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    prepare_environment()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("bfloat16") and not has_bfloat16():
        pytest.skip("this processor has no bfloat16")


@pytest.fixture
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A `Device` for a test marked gpu, skipped where there is none."""
    import paddle
    from device import take

    before = paddle.device.get_device()
    yield take(request.config.getoption("gpu_device"), monkeypatch)
    paddle.set_device(before)


@pytest.fixture
def tiny() -> dict[str, Any]:
    return copy.deepcopy(TINY)


@pytest.fixture
def clean_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    from resnet_fit.config import registry

    kept = {kind: dict(known) for kind, known in registry._parts.items()}
    monkeypatch.setattr(registry, "_parts", kept)


@pytest.fixture
def repository() -> Path:
    return REPOSITORY


@pytest.fixture
def write_yaml(tmp_path: Path) -> Callable[..., Path]:
    """Write text or a dictionary as ``<tmp>/<name>`` and return the file."""

    def write(content: str | dict[str, Any], name: str = "experiment.yaml") -> Path:
        from resnet_fit.config.document import dump

        file = tmp_path / name
        file.write_text(content if isinstance(content, str) else dump(content), encoding="utf-8")
        return file

    return write


@dataclass
class WebServer:
    """A web server of this machine: its address, the folder it serves, the paths asked for."""

    url: str
    folder: Path
    asked: list[str]


@pytest.fixture
def web_server(tmp_path: Path) -> Iterator[WebServer]:
    """A web server of the empty folder ``<tmp>/www``."""
    folder, asked = tmp_path / "www", list[str]()
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield WebServer(f"http://127.0.0.1:{running.server_port}", folder, asked)
        running.shutdown()
        thread.join()
