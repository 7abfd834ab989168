"""The parts that a config can name, and the configs that come with this library, in words."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

from resnet_fit.config.describe import Description, Setting, describe
from resnet_fit.config.problems import unknown
from resnet_fit.config.registry import CHOICES, KINDS, parts
from resnet_fit.config.shipped import shipped
from resnet_fit.errors import UserError
from resnet_fit.runs.config import SECTIONS

WIDTH = 80
# Where parts of a kind stand in a config.
PLACES = {
    "augmentation": "`augmentation.train`, `augmentation.eval`",
    "transform": "`augmentation.train`, `augmentation.eval`, for `data: {name: folder}`",
    "callback": "`callbacks`",
    **{choice.kind: f"`{section}`" for section, choice in CHOICES.items()},
}


def list_kinds() -> Iterator[str]:
    """Every kind with its parts, a line each."""
    for kind in KINDS:
        yield f"{kind}: {', '.join(sorted(parts(kind)))}"


def list_parts(kind: str) -> Iterator[str]:
    """Every part of a kind, with its settings.

    Raises:
        UserError: there is no such kind.
    """
    if kind not in KINDS:
        raise UserError(unknown(kind, "kind", [*KINDS, "configs"]))
    for name, part in sorted(parts(kind).items()):
        description = describe(name, part)
        yield from _wrapped(f"{name}: {_plain(description.sentence)}", indent=4)
        for setting in description.settings:
            yield from _wrapped(f"  {_line(setting)}", indent=6)


def list_configs() -> Iterator[str]:
    """The configs of this library: what each is, and what was measured."""
    for config in shipped():
        yield from _wrapped(f"{config.name}: {config.sentence}", indent=4)
        yield from _wrapped(f"    measured: {config.measured or 'nothing yet'}", indent=6)


def _line(setting: Setting) -> str:
    default = "required" if setting.default is None else f"{setting.default} by default"
    kind = f"{setting.type}, " if setting.type else ""
    return f"{setting.name} ({kind}{default}): {_plain(setting.sentence)}"


def _plain(text: str) -> str:
    return text.replace("``", "").replace("`", "")


def _wrapped(text: str, indent: int) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )


def markdown() -> str:
    """Every section and part with its settings, as the page docs/settings.md."""
    blocks = [
        "# Settings\n\n"
        "Every section of a config and every part that it can name, with all settings. This page "
        "is made by\n`resnet-fit list --markdown`; a test compares the two."
    ]
    for name, section in SECTIONS.items():
        blocks.append(f"## `{name}`\n\n{_described(describe(name, section))}")
    for kind in KINDS:
        blocks.append(f"## Kind: {kind}\n\nIn {PLACES[kind]}.")
        descriptions = [describe(name, part) for name, part in sorted(parts(kind).items())]
        shared = _shared(descriptions)
        if shared:
            blocks.append(f"All of them have:\n\n{_table(shared)}")
        for description in descriptions:
            own = [setting for setting in description.settings if setting not in shared]
            blocks.append(f"### `{description.name}`\n\n{_described(description, own)}")
    return "\n\n".join(blocks) + "\n"


def _shared(descriptions: list[Description]) -> list[Setting]:
    """The settings that all parts of a kind have, where it has more than one."""
    if len(descriptions) < 2:
        return []
    first, *others = descriptions
    return [s for s in first.settings if all(s in other.settings for other in others)]


def _described(description: Description, settings: Iterable[Setting] | None = None) -> str:
    settings = list(description.settings if settings is None else settings)
    table = f"\n\n{_table(settings)}" if settings else ""
    return description.sentence.replace("``", "`") + table


def _table(settings: Iterable[Setting]) -> str:
    rows = ["| setting | type | default | |", "|---|---|---|---|"]
    for setting in settings:
        default = "required" if setting.default is None else f"`{setting.default}`"
        sentence = setting.sentence.replace("``", "`").replace("|", "\\|")
        rows.append(f"| `{setting.name}` | {setting.type} | {default} | {sentence} |")
    return "\n".join(rows)
