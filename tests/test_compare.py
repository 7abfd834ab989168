"""`resnet-fit compare` lays runs side by side, and leaves them as they are."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import matplotlib
import pytest
from conftest import REPOSITORY
from markdown_it import MarkdownIt
from PIL import Image
from rich.cells import cell_len

import resnet_fit
from resnet_fit.cli import main
from resnet_fit.config.document import dump
from resnet_fit.reports.compare import compare, read_runs
from resnet_fit.reports.compare_formats import as_json, as_markdown, as_text
from resnet_fit.reports.curves import draw, is_wide, points
from resnet_fit.runs.outcome import read_outcome

RESULTS = REPOSITORY / "docs/results"
TRICKS = RESULTS / "tricks"
FIRST = {"model": {"name": "resnet", "depth": 18, "width": None}, "training": {"epochs": 3}}


def make_run(folder: Path, top1: list[float], **changes) -> Path:
    """A run's folder with the files that a comparison reads, a minute for each epoch."""
    folder.mkdir(parents=True)
    config = FIRST | changes.get("config", {})
    (folder / "config.yaml").write_text(dump(config), encoding="utf-8")
    rows = [
        {
            "epoch": epoch,
            "train": {"loss": 2.0 / epoch, "top1": value / 2},
            "images_per_second": 50.0,
            "train_seconds": 40.0,
            "seconds": 60.0 * epoch,
            "eval": {"loss": 1.0 / epoch, changes.get("metric", "top1"): value},
        }
        for epoch, value in enumerate(top1, 1)
    ]
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
    if len(rows) == config["training"]["epochs"]:
        summary = {
            "epochs": len(rows),
            "parameters": 11_173_962,
            "macs": 555_422_720,
            "config": config,
            "judged_on": changes.get("judged_on", "test"),
            "environment": {"cores": 2} | changes.get("environment", {}),
        }
        (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    else:
        (folder / "run.log").write_text("", encoding="utf-8")
    return folder


@pytest.fixture
def runs(tmp_path):
    """Three runs: two finished, of which one is wide, and one stopped after its first epoch."""
    make_run(tmp_path / "runs/plain", [0.5, 0.75, 0.7])
    wide = {"model": FIRST["model"] | {"width": 64}}
    make_run(tmp_path / "runs/wide", [0.6, 0.7, 0.8], config=wide, environment={"cores": 1})
    make_run(tmp_path / "runs/cut", [0.9])
    return tmp_path / "runs"


def run(capsys, *arguments):
    code = main(["compare", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def results(text: str) -> list[list[str]]:
    """The cells of the first table of a text."""
    table = text.split("\n\n")[1]
    return [re.split(r"\s{2,}", line.strip()) for line in table.splitlines()]


def test_the_table_of_a_folder_of_runs(runs, capsys):
    code, out, err = run(capsys, runs)
    assert (code, err) == (0, "")
    header, *rows = results(out)
    assert [row[0] for row in rows] == ["cut", "plain", "wide"]
    named = {row[0]: dict(zip(header[:9], row[:9], strict=True)) for row in rows}
    assert header[8] == "best (epoch)"
    assert named["plain"] == {
        "run": "plain",
        "state": "finished",
        "epochs": "3",
        "minutes": "3.0",
        "images_per_second": "50.0",
        "parameters": "11,173,962",
        "gmacs": "0.5554",
        "eval.loss": "0.3333",
        "best (epoch)": "0.3333 (3)",
    }
    assert named["cut"]["state"] == "stopped"
    assert named["cut"]["epochs"] == "1 of 3"
    assert named["cut"]["parameters"] == "-"
    assert "70.00 %   75.00 % (2)" in out
    assert out.endswith(
        "settings that differ:\n"
        "  model.width\n"
        "    64: wide\n"
        "    -: cut, plain\n"
        "\n"
        "machines that differ:\n"
        "  cores\n"
        "    -: cut\n"
        "    2: plain\n"
        "    1: wide\n"
    )


def test_equal_configs_show_no_settings(tmp_path, capsys):
    for name in ("a", "b"):
        make_run(tmp_path / name, [0.1, 0.2, 0.3])
    _, out, _ = run(capsys, tmp_path)
    assert "differ" not in out


@pytest.mark.parametrize(
    ("by", "order"),
    [
        ("eval.top1", ["cut", "wide", "plain"]),
        ("best.eval.top1", ["cut", "wide", "plain"]),
        ("train.loss", ["plain", "wide", "cut"]),
        ("minutes", ["cut", "plain", "wide"]),
        ("parameters", ["plain", "wide", "cut"]),
    ],
)
def test_sorted_by_what_is_asked_for_with_missing_values_last(runs, capsys, by, order):
    code, out, _ = run(capsys, runs, "--by", by)
    assert code == 0
    assert out.startswith(f"3 runs by {by}, the best first\n")
    header, *rows = results(out)
    assert [row[0] for row in rows] == order
    assert header[1] == by.removeprefix("best.")


def test_last_and_best_order_runs_differently(tmp_path, capsys):
    make_run(tmp_path / "a", [0.5, 0.9, 0.6])
    make_run(tmp_path / "b", [0.5, 0.6, 0.7])
    for by, first in (("eval.top1", "b"), ("best.eval.top1", "a")):
        _, out, _ = run(capsys, tmp_path, "--by", by)
        assert results(out)[1][0] == first


def test_runs_with_other_metrics(runs, capsys):
    make_run(runs / "other", [0.3, 0.4, 0.5], metric="top3")
    _, out, _ = run(capsys, runs, "--by", "eval.top3")
    header, *rows = results(out)
    column = header.index("eval.top3")
    assert {row[0]: row[column] for row in rows} == {
        "other": "50.00 %",
        "cut": "-",
        "plain": "-",
        "wide": "-",
    }


def test_settings_of_the_tricks_are_those_that_the_study_set(capsys):
    """An independent list: what examples/studies/tricks.yaml changes in each run."""
    _, out, _ = run(capsys, TRICKS, "--format", "json")
    keys = json.loads(out)["runs"][0]["settings"]
    assert set(keys) == {
        "augmentation.mix",
        "augmentation.progressive",
        "augmentation.train",
        "callbacks.weight_average",
        "data.repeats",
        "loss.label_smoothing",
        "loss.name",
        "model.stochastic_depth",
        "optimizer.learning_rate",
        "optimizer.name",
    }  # LAMB's and Muon's own settings, such as their weight decay, go with the name


def test_a_setting_is_compared_among_parts_of_one_name(tmp_path):
    momentum = {"name": "momentum", "learning_rate": 0.1, "nesterov": True}
    for name, optimizer in {
        "a": momentum,
        "b": momentum | {"learning_rate": 0.2},
        "c": {"name": "lamb", "learning_rate": 0.3, "beta1": 0.9},
    }.items():
        make_run(tmp_path / name, [0.5] * 3, config={"optimizer": optimizer})
    settings = {d.key: d.values for d in compare(read_runs([tmp_path])).settings}
    assert settings == {
        "optimizer.name": ["momentum", "momentum", "lamb"],
        "optimizer.learning_rate": [0.1, 0.2, 0.3],
    }


def test_evaluations_on_other_images_are_told(runs, capsys):
    make_run(runs / "held-out", [0.3] * 3, judged_on="validation")
    _, out, _ = run(capsys, runs)
    header, *rows = results(out)
    assert header[2] == "judged on"
    assert [row[2] for row in rows] == ["-", "validation", "test", "test"]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_narrow_text_loses_nothing(width):
    comparison = compare(read_runs([RESULTS]), "eval.top1")
    wide, narrow = as_text(comparison), as_text(comparison, width)
    assert max(map(cell_len, narrow.splitlines())) <= width
    whole = narrow.partition("settings that differ")[0].replace("\\\n", "")
    for label, outcome in comparison.runs.items():
        assert label in whole
        for value in outcome.last.values():
            assert f"{value:.4f}" in whole or f"{100 * value:.2f} %" in whole
    assert "…" not in narrow
    assert "..." not in narrow
    settings = [" ".join(t.partition("settings that differ")[2].split()) for t in (wide, narrow)]
    assert settings[0].replace(" ", "") == settings[1].replace(" ", "")


def test_wide_characters_keep_columns_straight(runs):
    make_run(runs / "幅の広い", [0.5, 0.6, 0.7])
    text = as_text(compare(read_runs([runs])))
    lines = text.split("\n\n")[1].splitlines()
    assert len({cell_len(line) for line in lines}) == 1


def test_on_a_terminal_of_forty_columns(runs):
    environment = os.environ | {"COLUMNS": "40", "TERM": "xterm"}
    environment["PYTHONPATH"] = str(Path(resnet_fit.__file__).parents[1])
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "resnet_fit", "compare", str(runs)]
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the end, as Linux tells it
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert process.wait(timeout=30) == 0
    lines = shown.decode().splitlines()
    assert max(map(len, lines)) <= 40
    assert sum(line.startswith("run ") for line in lines) > 1  # tables that continue
    assert "\x1b" not in shown.decode()


@pytest.mark.parametrize("name", ["plain", "a|b", "a`b", "``", "*x* _y_ <b>", "tab\tand\nline"])
def test_markdown_is_what_github_shows(tmp_path, name):
    make_run(tmp_path / "runs" / name, [0.5, 0.6, 0.7], config={"data": {"path": "x"}})
    make_run(tmp_path / "runs/other", [0.5], config={"data": {"path": "a|b`c"}})
    comparison = compare(read_runs([tmp_path / "runs"]))
    tokens = MarkdownIt("commonmark").enable("table").parse(as_markdown(comparison))
    rows: list[list[str]] = []
    for before, token in pairwise(tokens):
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline" and before.type in ("th_open", "td_open"):
            rows[-1].append("".join(child.content for child in token.children or []))
    header = rows[0]
    table = [row for row in rows if len(row) == len(header)]
    assert len(table) == 3
    assert {row[0] for row in table[1:]} == set(comparison.runs)
    assert ["data.path", "a|b`c", "other"] in rows
    assert all(token.type != "html_inline" for token in tokens)


def test_json_has_the_keys_that_the_page_tells(runs, capsys):
    code, out, _ = run(capsys, runs, "--format", "json", "--by", "eval.top1")
    found = json.loads(out)
    assert code == 0
    assert found.keys() == {"by", "runs"}
    page = (REPOSITORY / "docs/compare.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `runs\[\]\.(\w+)` \|", page, re.M)
    assert [list(each) for each in found["runs"]] == [told] * 3
    by_name = {each["run"]: each for each in found["runs"]}
    plain = by_name["plain"]
    assert plain["folder"] == str(runs / "plain")
    assert plain["best"]["eval.top1"] == {"value": 0.75, "epoch": 2}
    assert plain["last"]["eval.top1"] == 0.7
    assert plain["gmacs"] == 0.55542272
    assert plain["settings"] == {"model.width": None}
    assert by_name["wide"]["settings"] == {"model.width": 64}
    assert by_name["wide"]["environment"] == {"cores": 1}
    assert by_name["cut"]["parameters"] is None
    assert (by_name["cut"]["epochs"], by_name["cut"]["epochs_asked"]) == (1, 3)


def test_the_example_of_the_page_is_what_is_printed():
    page = (REPOSITORY / "docs/compare.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```\n(2 runs.*?)^```$", page, re.M | re.S)
    kept = [RESULTS / f"resnet20_cifar_3_epochs{ending}" for ending in ("", "_bfloat16")]
    printed = as_text(compare(read_runs(kept), "eval.top1"), 80).strip().split("\n\n")
    assert len(example.strip().split("\n\n")) == 4
    assert all(part in printed for part in example.strip().split("\n\n"))


def test_curves_are_those_of_the_rows(runs):
    outcome = read_outcome(runs / "plain")
    assert points(outcome, "eval.top1", "epochs") == ([1, 2, 3], [50, 75, 70])
    assert points(outcome, "eval.loss", "minutes") == ([1, 2, 3], [1, 0.5, 1 / 3])


@pytest.mark.parametrize(
    ("ends", "wide"), [([], False), ([5.0], False), ([1.0, 10.0], False), ([20.0, 2.0, 1.9], True)]
)
def test_minutes_are_logarithmic_where_runs_differ_by_more_than_ten(ends, wide):
    assert is_wide(ends) == wide


def test_marks_of_a_wide_axis_are_plain_numbers(tmp_path):
    for name, minutes in (("short", 2), ("long", 200)):
        make_run(tmp_path / name, [0.5] * minutes)
    runs = {name: read_outcome(tmp_path / name) for name in ("short", "long")}
    draw(runs, tmp_path / "curves.svg", ["eval.top1"], ["minutes"])
    marks = re.findall(r"<!-- ([\d.]+) -->", (tmp_path / "curves.svg").read_text("utf-8"))
    assert {"1", "2", "5", "10", "20", "50", "100", "200"} <= set(marks)


def test_marks_of_a_very_wide_axis_are_powers_of_ten(tmp_path):
    outcomes = {}
    for name, seconds in (("short", 1), ("long", 30_000)):
        make_run(tmp_path / name, [0.5])
        outcomes[name] = read_outcome(tmp_path / name)
        outcomes[name].rows[0]["seconds"] = seconds
    draw(outcomes, tmp_path / "curves.svg", ["eval.top1"], ["minutes"])
    marks = re.findall(r"<!-- ([\d.]+) -->", (tmp_path / "curves.svg").read_text("utf-8"))
    assert {"0.1", "1", "10", "100"} <= set(marks)
    assert not {"0.2", "0.5", "2", "5", "20", "200"} & set(marks)  # 50 is an accuracy


def test_panels_keep_their_size_beside_many_long_names(runs, tmp_path):
    def panel_width(names):
        draw(dict.fromkeys(names, read_outcome(runs / "plain")), tmp_path / "x.svg")
        text = (tmp_path / "x.svg").read_text("utf-8")
        panel = re.search(r'<g id="patch_2">\s*<path d="M ([\d.]+) [\d.]+ *\nL ([\d.]+) ', text)
        return float(panel[2]) - float(panel[1])

    many = [f"a run with a name that is long, number {i}" for i in range(100)]
    assert panel_width(many) == pytest.approx(panel_width(["one"]), rel=0.05)


def test_a_picture_is_drawn_where_asked_for(runs, tmp_path, capsys):
    before = sorted(p for p in tmp_path.rglob("*") if p.is_file())
    assert run(capsys, runs)[0] == 0
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == before
    picture = tmp_path / "curves.png"
    code, out, _ = run(capsys, runs, "--output", picture)
    assert code == 0
    assert "settings that differ" in out
    with Image.open(picture) as image:
        assert image.format == "PNG"
        assert 1980 < image.width < 2200  # four metrics, and the names beside them
        assert image.height == 748  # by epoch and by minute
        assert len(image.convert("RGB").getcolors(1 << 24)) > 50
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == sorted([*before, picture])


def test_drawing_in_a_program_leaves_its_matplotlib_alone(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(matplotlib, "use", None)
    monkeypatch.delattr(matplotlib, "pyplot", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it fails
    draw({"plain": read_outcome(runs / "plain")}, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000


def test_labels_that_are_no_formulas(runs, tmp_path, recwarn):
    outcome = read_outcome(runs / "plain")
    draw({"$x_{": outcome, "_hidden": outcome, "a$b$": outcome}, tmp_path / "x.png", title="$_{")
    assert (tmp_path / "x.png").stat().st_size > 1000
    assert not [w for w in recwarn if "label" in str(w.message)]


def test_nothing_to_draw(runs, tmp_path, capsys):
    (runs / "cut/metrics.jsonl").unlink()
    code, _, err = run(capsys, runs / "cut", "--output", tmp_path / "x.png")
    assert code == 2
    assert "nothing to draw" in err
    assert not (tmp_path / "x.png").exists()


def test_a_run_named_twice_is_one(runs, capsys):
    _, out, _ = run(capsys, runs, runs / "plain", runs / "../runs/wide")
    assert out.startswith("3 runs\n")


def test_names_are_as_short_as_they_can_be(runs, tmp_path):
    make_run(tmp_path / "elsewhere/plain", [0.5])
    labels = list(read_runs([runs / "plain", tmp_path / "elsewhere"]))
    assert labels == ["runs/plain", "elsewhere/plain"]
    assert list(read_runs([runs / "plain"])) == ["plain"]
    near, far = tmp_path / "runs/wide", RESULTS / "resnet18_digits"
    common = os.path.commonpath([near, far])
    expected = [str(p) if common == "/" else os.path.relpath(p, common) for p in (near, far)]
    assert list(read_runs([near, far])) == expected


def test_names_of_any_bytes(runs, capsys):
    try:
        make_run(Path(os.fsdecode(os.fsencode(runs) + b"/caf\xe9")), [0.5, 0.6, 0.7])
    except OSError:
        pytest.skip("this file system takes text only")
    for kind in ("text", "markdown", "json"):
        code, out, _ = run(capsys, runs, "--format", kind)
        assert code == 0
        assert r"caf\xe9" in out.replace(r"\\", "\\")


def test_a_broken_run_among_others_is_left_out_with_a_line(runs, capsys):
    (runs / "plain/metrics.jsonl").write_text("{")
    code, out, err = run(capsys, runs)
    assert code == 0
    assert out.startswith("2 runs\n")
    (line,) = err.splitlines()
    assert line.startswith(f"resnet-fit: warning: left out: {runs}/plain/metrics.jsonl:1: damaged")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["runs/plian"], "runs/plian: no such file or folder. Did you mean 'plain'?"),
        (["empty"], "empty: neither a run's folder nor a folder of runs"),
        (["runs/plain/config.yaml"], "neither a run's folder nor a folder of runs"),
        (["broken"], "broken/metrics.jsonl:1: damaged"),
        (["runs", "--by", "eval.topp1"], "no run has 'eval.topp1'. Did you mean 'eval.top1'?"),
        (["runs", "--format", "jsn"], "Did you mean 'json'?"),
        (["runs", "--output", "x.jpg"], "expected a name that ends in .png, .svg or .pdf"),
        (["runs", "--output", "none/x.png"], "there is no folder none"),
        ([], "required: RUN"),
    ],
)
def test_mistakes_are_told_in_one_line(runs, tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (make_run(tmp_path / "broken", [0.5]) / "metrics.jsonl").write_text("{")
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert words in err


def test_paddle_is_not_needed(runs):
    code = (
        "import sys; sys.modules['paddle'] = None; from resnet_fit.cli import main; "
        f"code = main(['compare', {str(runs)!r}]); "
        "assert not {'matplotlib', 'pydantic'} & sys.modules.keys(); sys.exit(code)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(resnet_fit.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=environment)


def test_formats_agree_on_the_kept_runs():
    comparison = compare(read_runs([RESULTS]), "eval.top1")
    names = [each["run"] for each in json.loads(as_json(comparison))["runs"]]
    in_text = [row[0] for row in results(as_text(comparison))[1:]]
    in_markdown = re.findall(r"^\| `([^`]+)` \| \d", as_markdown(comparison), re.M)
    assert names == in_text == in_markdown
    top1 = [read_outcome(RESULTS / name).last["eval.top1"] for name in names]
    assert top1 == sorted(top1, reverse=True)
    assert len(names) > 30
