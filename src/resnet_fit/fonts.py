"""Fonts for names in pictures: matplotlib's own has no Chinese, Japanese or Korean characters."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from matplotlib import font_manager, rc_context

OWN = "DejaVu Sans"
# Widespread fonts with these characters, of Linux, Windows and macOS.
EAST_ASIAN = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "Microsoft YaHei",
    "SimHei",
    "Malgun Gothic",
    "Yu Gothic",
    "PingFang SC",
    "Hiragino Sans GB",
    "Apple SD Gothic Neo",
    "Arial Unicode MS",
)


@contextmanager
def for_any_name() -> Iterator[None]:
    """In the block, pictures take characters from whatever font of this machine has them.

    A character that none has becomes a box, without matplotlib's warning for each.
    """
    with rc_context({"font.family": list(_families())}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def can_be_drawn(text: str) -> bool:
    """Whether this machine has a font for every character of a text."""
    return all(any(ord(character) in font for font in _characters()) for character in text)


@cache
def _families() -> tuple[str, ...]:
    installed = set(font_manager.get_font_names())
    return (OWN, *(name for name in EAST_ASIAN if name in installed))


@cache
def _characters() -> list[frozenset[int]]:
    """The code points that each font has."""
    files = [font_manager.findfont(family) for family in _families()]
    return [frozenset(font_manager.get_font(file).get_charmap()) for file in files]
