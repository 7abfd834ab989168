"""Train several experiments, and lay their curves and figures side by side.

    python examples/study.py examples/studies/degradation.yaml

A study is a YAML file: ``runs``, each a config with settings of its own, and ``set``, settings for
all. Runs go to ``runs/<study>/<run>``, and the picture of their curves beside them. What is
finished is not run again, and what was interrupted goes on, so that the same command continues a
study; a run that ended before its first checkpoint begins anew.
``resnet-fit compare runs/<study>`` shows the same figures.

    python examples/study.py examples/studies/article.yaml --set training.epochs=3

changes a setting in every run.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from resnet_fit.config.differences import differences
from resnet_fit.config.document import Document, read_document
from resnet_fit.config.problems import problems_of, raise_problems
from resnet_fit.config.settings import Settings
from resnet_fit.errors import Interrupted, RunFailed, UserError
from resnet_fit.reports.compare import compare
from resnet_fit.reports.compare_formats import as_text
from resnet_fit.reports.curves import Axis, draw
from resnet_fit.runs.outcome import Outcome, read_outcome
from resnet_fit.runtime import prepare_environment
from resnet_fit.terminal import command_console

Metric = Literal["train.top1", "eval.top1", "train.loss", "eval.loss"]


class RunOf(Settings):
    """One experiment: a config, relative to the study's file, and what differs from it."""

    label: str
    config: str
    set: list[str] = Field(default_factory=list)


class Study(Settings):
    """What to run, and what to draw of it against epochs or minutes."""

    title: str
    set: list[str] = Field(default_factory=list)
    draw: list[Metric] = Field(default=["train.top1", "eval.top1"], min_length=1)
    against: list[Axis] = Field(default=["epochs"], min_length=1)
    runs: Annotated[dict[str, RunOf], Field(min_length=1)]


def read_study(file: Path) -> Study:
    """Read and check a study's file.

    Raises:
        UserError: with a line for each mistake in it.
    """
    if not file.is_file():
        raise UserError(f"{file}: there is no such study")
    document: Document = read_document(file)
    try:
        study = Study.model_validate(document.value)
    except ValidationError as error:
        raise_problems(problems_of(error, Study), document)
        raise
    labels = [run.label for run in study.runs.values()]
    for label in labels:
        if labels.count(label) > 1:
            raise UserError(f"{file}: runs: two of them have the label {label!r}")
    return study


def train(study: Study, folder: Path, output: Path, overrides: list[str]) -> dict[str, Outcome]:
    """Run what is not finished; configs are relative to ``folder``. All are checked first.

    Returns:
        what came out, by label.

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
        if any((output / name / "checkpoints").glob("*last*")):  # `last` or `.last.previous`
            resume(output / name)
        else:
            shutil.rmtree(output / name, ignore_errors=True)
            fit(config, output, name)
    return {run.label: read_outcome(output / name) for name, run in study.runs.items()}


def require_same(run: Path, kept: dict[str, Any], asked: dict[str, Any]) -> None:
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
    width = command_console().width if sys.stdout.isatty() else None
    print(study.title, as_text(compare(outcomes), width), sep="\n\n")
    figure = output / f"{given.study.stem}.png"
    draw(outcomes, figure, study.draw, study.against, study.title)
    print(figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
