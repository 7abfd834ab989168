"""Train several experiments, and lay their curves and last figures side by side.

    python examples/study.py examples/studies/degradation.yaml

A study is a YAML file: ``runs``, each a config with settings of its own, and ``set``, settings for
all. Runs go to ``runs/<study>/<run>``, and the figure and the table beside them. What is finished
is not run again, and what was interrupted goes on, so that the same command continues a study.

    python examples/study.py examples/studies/article.yaml --set training.epochs=3

changes a setting in every run. It needs matplotlib: ``pip install '.[cpu,test]'`` has it.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from rich import box
from rich.console import Console
from rich.table import Table

from resnet_fit.config.differences import differences
from resnet_fit.config.document import Document, read_document
from resnet_fit.config.problems import problems_of, raise_problems
from resnet_fit.config.settings import Settings
from resnet_fit.errors import Interrupted, RunFailed, UserError
from resnet_fit.runtime import prepare_environment

Row = dict[str, Any]
Drawn = Literal["train error", "test error", "train loss", "test loss"]
Axis = Literal["epochs", "minutes"]


class RunOf(Settings):
    """One experiment: a config, relative to the study's file, and what differs from it."""

    label: str
    config: str
    set: list[str] = Field(default_factory=list)


class Study(Settings):
    """What to run, and what to draw of it against epochs or minutes."""

    title: str
    set: list[str] = Field(default_factory=list)
    draw: list[Drawn] = Field(default=["train error", "test error"], min_length=1)
    against: list[Axis] = Field(default=["epochs"], min_length=1)
    runs: Annotated[dict[str, RunOf], Field(min_length=1)]


@dataclass(frozen=True)
class Outcome:
    """What is left of a run: its row for each epoch, and its summary."""

    label: str
    rows: list[Row]
    summary: dict[str, Any]


def read_study(file: Path) -> Study:
    """Read and check a study's file.

    Raises:
        UserError: with a line for each mistake in it.
    """
    if not file.is_file():
        raise UserError(f"{file}: there is no such study")
    document: Document = read_document(file)
    try:
        return Study.model_validate(document.value)
    except ValidationError as error:
        raise_problems(problems_of(error, Study), document)
        raise


def train(study: Study, folder: Path, output: Path, overrides: list[str]) -> list[Outcome]:
    """Run what is not finished; configs are relative to ``folder``. All are checked first.

    Raises:
        UserError: a mistake in a config, or another one than its run in ``output`` was made of.
    """
    from resnet_fit import fit, load_config, resume

    configs = {
        name: load_config(folder / run.config, [*study.set, *run.set, *overrides])
        for name, run in study.runs.items()
    }
    for name, config in configs.items():
        if (kept := output / name / "config.yaml").exists():
            require_same(output / name, load_config(kept).model_dump(), config.model_dump())
    for name, config in configs.items():
        if (output / name / "summary.json").exists():
            continue
        print(f"== {name}", flush=True)
        if (output / name / "checkpoints" / "last").exists():
            resume(output / name)
        else:
            fit(config, output, name)
    return [read_outcome(run.label, output / name) for name, run in study.runs.items()]


def require_same(run: Path, kept: Row, asked: Row) -> None:
    """Refuse to show the figures of one experiment as those of another.

    Raises:
        UserError: naming the first setting that differs.
    """
    for path, was, now in differences(kept, asked):
        key = ".".join(map(str, path))
        raise UserError(
            f"{run}: trained with {key} {was!r}, which is {now!r} in this study now; "
            "choose another --output or delete that run"
        )


def read_outcome(label: str, run: Path) -> Outcome:
    """Read a finished run's folder."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    return Outcome(label, [json.loads(line) for line in lines], summary)


def table(title: str, outcomes: list[Outcome]) -> Table:
    """The last epoch of each run; errors in percent, those of averaged weights etc. as well."""
    result = Table(title=f"{title}: errors in percent", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    result.add_column("run")
    judged = {name for outcome in outcomes for name in outcome.rows[-1]["eval"]}
    # Averaged weights are judged as ``ema_top1``, mirrored images as ``flip_top1``.
    tests = ["top1", *sorted(name for name in judged if name.endswith("_top1"))]
    errors = ["test", *(name.removesuffix("_top1") for name in tests[1:])]
    for name in ("parameters", "epochs", "minutes", "train", *errors):
        result.add_column(name, justify="right")
    for outcome in outcomes:
        last = outcome.rows[-1]
        result.add_row(
            outcome.label,
            f"{outcome.summary['parameters']:,}",
            str(len(outcome.rows)),
            f"{last['seconds'] / 60:.0f}",
            f"{error(last['train']):.2f}",
            *(f"{error(last['eval'], n):.2f}" if n in last["eval"] else "" for n in tests),
        )
    return result


def error(metrics: dict[str, float], name: str = "top1") -> float:
    """The answers that were wrong, in percent."""
    return 100 * (1 - metrics[name])


def value(row: Row, what: str) -> float:
    """``train error`` etc. of an epoch."""
    part, kind = what.split()
    metrics = row["train" if part == "train" else "eval"]
    return error(metrics) if kind == "error" else metrics["loss"]


def draw(study: Study, outcomes: list[Outcome], file: Path) -> None:
    """A panel for each thing to draw, and a row of them for each axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows, columns = len(study.against), len(study.draw)
    figure, panels = pyplot.subplots(
        rows, columns, figsize=(4.5 * columns, 3.4 * rows), squeeze=False, layout="constrained"
    )
    figure.suptitle(study.title)
    for axis, line in zip(study.against, panels, strict=True):
        for what, panel in zip(study.draw, line, strict=True):
            for outcome in outcomes:
                across = [
                    row["epoch"] if axis == "epochs" else row["seconds"] / 60
                    for row in outcome.rows
                ]
                panel.plot(
                    across,
                    [value(row, what) for row in outcome.rows],
                    marker="o",
                    markersize=3,
                    label=outcome.label,
                )
            panel.set_xlabel(axis)
            if axis == "epochs":
                panel.xaxis.get_major_locator().set_params(integer=True)
            panel.set_ylabel(f"{what} (%)" if what.endswith("error") else what)
            panel.grid(alpha=0.3)
    panels[0][-1].legend(fontsize="small")
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Train several experiments side by side.")
    parser.add_argument("study", type=Path, help="a file of examples/studies")
    parser.add_argument("--output", type=Path, help="where runs go; runs/<study> by default")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args(arguments)
    output = given.output or Path("runs") / given.study.stem
    prepare_environment()
    try:
        study = read_study(given.study)
        outcomes = train(study, given.study.parent, output, given.set)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except RunFailed as error:
        print(error, file=sys.stderr)
        return 1
    except Interrupted as stop:
        print(f"stopped; the same command goes on ({stop})", file=sys.stderr)
        return stop.exit_code
    Console(markup=False, emoji=False).print(table(study.title, outcomes))
    figure = output / f"{given.study.stem}.png"
    draw(study, outcomes, figure)
    print(figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
