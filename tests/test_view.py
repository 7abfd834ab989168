"""``resnet-fit view`` shows in VisualDL's page what the runs wrote."""

from __future__ import annotations

import json
import shutil
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
from resnet_fit.reports.run_names import Runs

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


def test_runs_have_short_names(server):
    assert api(server, "runs") == ["first/eval", "first/train", "second/eval", "second/train"]


@pytest.mark.parametrize("run", RUNS)
def test_curves_are_those_of_the_metrics_file(server, runs, run):
    rows = [json.loads(line) for line in (runs / run / "metrics.jsonl").read_text().splitlines()]
    for part in ("train", "eval"):
        for metric in METRICS:
            expected = {row["step"]: row[part][metric] for row in rows}
            assert len(expected) == 2
            found = curve(server, f"{run}/{part}", f"epoch/{metric}")
            assert found == pytest.approx(expected, rel=1e-6)
    rates = curve(server, f"{run}/train", "step/learning_rate")
    assert [rates[row["step"]] for row in rows] == pytest.approx(
        [row["learning_rate"] for row in rows], rel=1e-6
    )


def test_all_curves_of_one_metric_are_in_one_chart(server):
    """The page draws curves of one tag into one chart."""
    found = api(server, "scalar/tags")
    tags = dict(zip(found["runs"], map(set, found["tags"]), strict=True))
    assert tags["first/train"] == tags["second/train"]
    assert tags["first/eval"] == tags["second/eval"]
    assert tags["first/train"] & tags["first/eval"] == {
        *(f"epoch/{metric}" for metric in METRICS),
        "speed/seconds",
    }


def test_config_and_hyperparameters_are_shown(server):
    path = f"text/text?run={quote('second/train', safe='')}&tag=config%25optimizer&index=0"
    assert "learning_rate: 0.1" in get(server, f"app/api/{path}").decode()
    rows = api(server, "hparams/list")
    assert {row["name"]: row["hparams"]["training/seed"] for row in rows} == {
        "first/eval": 0,
        "second/eval": 1,
    }
    assert all(row["metrics"]["epoch/top1"] > 0 for row in rows)


def test_there_is_a_tab_for_each_page_with_data(server):
    tabs = set(api(server, "component_tabs"))
    assert tabs == {"scalar", "text", "image", "histogram", "hyper_parameters", "static_graph"}


def test_other_records_of_a_run_are_a_run_of_their_own(runs, tmp_path):
    """Such as those of an evaluation; several places are served by one command."""
    shutil.copytree(runs / "first", tmp_path / "a" / "first")
    shutil.copytree(runs / "first", tmp_path / "b" / "first")
    records = tmp_path / "a" / "first" / "evaluation" / "visualdl"
    shutil.copytree(runs / "second" / "visualdl" / "eval", records)
    with serving(tmp_path / "a", tmp_path / "b") as (_, address):
        assert api(address, "runs") == [
            *(f"a/first/{name}" for name in ("evaluation", "eval", "train")),
            *(f"b/first/{name}" for name in ("eval", "train")),
        ]
        rows = map(json.loads, (runs / "second" / "metrics.jsonl").read_text().splitlines())
        expected = {row["step"]: row["eval"]["top1"] for row in rows}
        found = curve(address, "a/first/evaluation", "epoch/top1")
        assert found == pytest.approx(expected, rel=1e-6)


def test_a_record_that_is_cut_hides_nothing(runs, tmp_path):
    """One whose process was killed, or one that is still being written."""
    shutil.copytree(runs, tmp_path / "runs")
    file = tmp_path / "runs" / "first" / "visualdl" / "eval" / "vdlrecords.run.log"
    whole = file.read_bytes()
    file.write_bytes(whole[:-5])
    files = Runs([tmp_path / "runs"])
    assert [name for name, _, _ in files.walk("")] == [
        f"{run}/{part}" for run in RUNS for part in ("eval", "train")
    ]
    name = "first/eval/vdlrecords.run.log"
    content, mark = files.read(name, True, 1 << 20)
    assert 0 < len(content) < len(whole) - 5
    assert whole.startswith(content)
    assert files.read(name, True, 1 << 20, mark)[0] == b""
    file.write_bytes(whole)
    rest, mark = files.read(name, True, 10, mark)
    assert len(rest) == 10
    assert content + rest + files.read(name, True, 1 << 20, mark)[0] == whole


def test_the_page_itself(server):
    assert b"<html" in get(server, "app/scalar").lower()


def test_ends_at_ctrl_c(runs):
    with serving(runs / "first", runs / "second") as (process, address):
        assert len(api(address, "runs")) == 4
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors.splitlines() == ["resnet-fit: interrupted"]


def test_runs_that_are_links_are_shown_and_hidden_folders_are_not(tmp_path, capsys):
    """A port that is taken ends the command after the folders have been looked through."""
    (tmp_path / "elsewhere/run/visualdl/train").mkdir(parents=True)
    (tmp_path / "elsewhere/run/visualdl/train/vdlrecords.run.log").touch()
    (tmp_path / "runs/.evaluation.part/visualdl").mkdir(parents=True)
    (tmp_path / "runs/.evaluation.part/visualdl/vdlrecords.run.log").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = ["view", str(tmp_path / "runs"), "--port", str(taken.getsockname()[1])]
        assert main(command) == 2
        assert "no VisualDL records" in capsys.readouterr().err
        (tmp_path / "runs/linked").symlink_to(tmp_path / "elsewhere/run")
        assert main(command) == 2
        assert "cannot serve at" in capsys.readouterr().err


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
