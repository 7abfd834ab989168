"""VisualDL's pages draw what a run wrote, seen in a browser."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, browsing, wait_for
from test_view import get, serving

from resnet_fit.cli import main

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]

# Seconds until a page must have drawn; on an idle machine it takes a few.
PATIENCE = 120
# Coloured pixels of a line in a chart; the wheel that turns while it waits for data has fewer.
SOME = 500
BOXES = """[...document.querySelectorAll('canvas')].map(c => c.getBoundingClientRect())
    .map(r => [r.top, r.bottom, r.left, r.right].map(Math.round))"""

Seen = Callable[[Browser], bool]


def drawing(browser: Browser) -> bool:
    """There is colour in one of the page's canvases: lines, areas, points."""
    boxes = np.maximum(browser.evaluate(BOXES) or np.zeros((0, 4), int), 0)
    coloured = np.ptp(browser.picture().astype(int), axis=2) > 40
    return any(coloured[t:b, x:y].sum() > SOME for t, b, x, y in boxes)


def text(*words: str) -> Seen:
    """All of these words can be read."""

    def seen(browser: Browser) -> bool:
        found = browser.evaluate("document.body.innerText") or ""
        return all(word in found for word in words)

    return seen


def element(selector: str, words: str = "") -> Seen:
    """There is an element of some size, with these words in it; frames are looked into."""
    script = f"""[document, ...[...document.querySelectorAll('iframe')].map(f => f.contentDocument)]
        .some(d => d && [...d.querySelectorAll('{selector}')].some(e =>
            e.getBoundingClientRect().width > 30 && e.textContent.includes('{words}')))"""
    return lambda browser: bool(browser.evaluate(script))


# What shows that a page has drawn. A new page of data is a line here.
PAGES: dict[str, Seen] = {
    "scalar": drawing,
    "sample/image": element("img[src^=blob]"),
    "sample/text": text("config/model", "depth: [1, 1] | "),
    "histogram": drawing,
    "hyper-parameter": text("optimizer/learning_rate", "run/eval"),
    "graph/dynamic_graph": element("svg", "ResNet"),
    "pr-curve": drawing,
    "roc-curve": drawing,
    "high-dimensional": text("run/evaluation/features", "Points: "),
    "profiler": drawing,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    from conftest import TINY

    from resnet_fit import fit, parse_config

    folder = tmp_path_factory.mktemp("runs")
    value = copy.deepcopy(TINY)
    value["training"]["epochs"] = 3
    fit(parse_config(value, ["callbacks.visualdl.graph=true"]), folder, "run")
    assert main(["evaluate", str(folder / "run")]) == 0
    config = str(folder / "run" / "config.yaml")
    assert main(["profile", "--config", config, "--steps", "3", "--output", f"{folder}/trace"]) == 0
    return folder


@pytest.fixture(scope="module")
def emptied(runs, tmp_path_factory) -> Path:
    """The same run with nothing but the first record of each file, which is no data."""
    folder = tmp_path_factory.mktemp("emptied") / "runs"
    shutil.copytree(runs, folder)
    for file in folder.rglob("vdlrecords*"):
        content = file.read_bytes()
        file.write_bytes(content[: 8 + int.from_bytes(content[:8], "little")])
    for file in (*folder.rglob("vdlgraph*"), *folder.rglob("*.paddle_trace.json")):
        file.unlink()
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    assert CHROMIUM is not None
    with browsing(CHROMIUM, tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def server(runs) -> Iterator[str]:
    with serving(runs) as (_, address):
        get(address, "alive")
        yield address


@pytest.fixture(scope="module")
def empty_server(emptied) -> Iterator[str]:
    with serving(emptied) as (_, address):
        get(address, "alive")
        yield address


@pytest.mark.parametrize("page", PAGES)
def test_a_page_draws_its_records(server, browser, page, tmp_path):
    browser.open(f"{server}/app/{page}")
    is_drawn = wait_for(lambda: PAGES[page](browser), PATIENCE)
    (tmp_path / "page.png").write_bytes(browser.png())
    assert is_drawn, tmp_path / "page.png"


@pytest.mark.parametrize("page", PAGES)
def test_without_records_it_does_not(empty_server, browser, page):
    """The control of the test above."""
    browser.open(f"{empty_server}/app/{page}")
    assert wait_for(lambda: text("GRAPHS")(browser), PATIENCE)
    assert not wait_for(lambda: PAGES[page](browser), 5)
