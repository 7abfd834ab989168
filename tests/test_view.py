"""``resnet-fit view`` shows in VisualDL's page what the runs wrote."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import ProxyHandler, build_opener

import pytest

from resnet_fit.cli import main

COMMAND = [sys.executable, "-c", "import sys; from resnet_fit.cli import main; sys.exit(main())"]
RUNS = ("first", "second")
METRICS = ("loss", "top1", "top5")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Two runs of two epochs."""
    from conftest import TINY

    from resnet_fit import fit, parse_config

    folder = tmp_path_factory.mktemp("runs")
    for seed, name in enumerate(RUNS):
        fit(parse_config(TINY, [f"training.seed={seed}", "data.batch_size=256"]), folder, name)
    return folder


@contextmanager
def serving(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command as a process, and the address it says it serves at."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [*COMMAND, "view", *map(str, arguments), "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert f"http://127.0.0.1:{port}/app/" in line, (line, process.poll())
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def server(runs) -> Iterator[str]:
    with serving(runs) as (_, address):
        yield address


def get(address: str, path: str) -> bytes:
    opener = build_opener(ProxyHandler({}))
    opener.addheaders = [("Accept-Language", "en")]  # as every browser says
    deadline = time.monotonic() + 30
    while True:
        try:
            with opener.open(f"{address}/{path}", timeout=20) as response:
                return response.read()
        except HTTPError:
            raise
        except OSError:  # not up yet
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def api(address: str, path: str) -> Any:
    answer = json.loads(get(address, f"app/api/{path}"))
    assert answer["status"] == 0, answer
    return answer["data"]


def curve(address: str, run: str, tag: str) -> dict[int, float]:
    points = api(address, f"scalar/list?run={quote(run, safe='')}&tag={quote(tag, safe='')}")
    return {step: value for _, step, value in points}


def of(server: str, run: str) -> str:
    """A run's name as the page has it, which contains where it lies."""
    (name,) = {name for name in api(server, "runs") if run in name.split("/")}
    return name


def test_both_runs_are_shown(server):
    assert len(api(server, "runs")) == len(RUNS)
    assert of(server, "first") != of(server, "second")


@pytest.mark.parametrize("run", RUNS)
def test_curves_are_those_of_the_metrics_file(server, runs, run):
    rows = [json.loads(line) for line in (runs / run / "metrics.jsonl").read_text().splitlines()]
    shown = of(server, run)
    for part in ("train", "eval"):
        for metric in METRICS:
            expected = {row["step"]: row[part][metric] for row in rows}
            assert len(expected) == 2
            found = curve(server, shown, f"epoch/{part}_{metric}")
            assert found == pytest.approx(expected, rel=1e-6)
    rates = curve(server, shown, "step/learning_rate")
    assert [rates[row["step"]] for row in rows] == pytest.approx(
        [row["learning_rate"] for row in rows], rel=1e-6
    )


def test_runs_can_be_laid_over_each_other(server):
    """The page draws curves of one tag into one chart: both runs have the same tags."""
    found = api(server, "scalar/tags")
    tags = dict(zip(found["runs"], found["tags"], strict=True))
    first, second = (set(tags[of(server, run)]) for run in RUNS)
    assert first == second
    assert {"epoch/train_loss", "epoch/eval_top1", "step/loss", "step/images_per_second"} <= first


def test_config_and_hyperparameters_are_shown(server, runs):
    shown = quote(of(server, "second"), safe="")
    text = get(server, f"app/api/text/text?run={shown}&tag=config&index=0").decode()
    assert "learning_rate: 0.1" in text
    assert {row["hparams"]["training.seed"] for row in api(server, "hparams/list")} == {0, 1}


def test_the_page_itself(server):
    assert b"<html" in get(server, "app/scalar").lower()


def test_ends_at_ctrl_c(runs):
    with serving(runs / "first", runs / "second") as (process, address):
        assert len(api(address, "runs")) == 2
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors.splitlines() == ["resnet-fit: interrupted"]


@pytest.mark.parametrize("host", ["127.0.0.1", "256.1.1.1"])
def test_a_port_or_address_that_cannot_be_had(runs, capsys, host):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        started = time.monotonic()
        code = main(["view", str(runs), "--host", host, "--port", str(port)])
    lines = capsys.readouterr().err.splitlines()
    assert code == 2
    assert len(lines) == 1
    assert f"cannot serve at {host}:{port}" in lines[0]
    assert "choose another --port" in lines[0]
    assert time.monotonic() - started < 10
