"""The description of a run's data: ``data.json``.

It has two uses. A resumed run checks with it that the data are still the same. And it makes
predictions possible without the data: it has the class names, the image shape and the
preprocessing.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from resnet_fit.data.dataset import Dataset
from resnet_fit.data.digest import content_digest, names_digest
from resnet_fit.errors import UserError, few
from resnet_fit.files import json_text

# Raise it when a field is added or changes its meaning.
FORMAT = 1

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Part:
    """One part of the data.

    Attributes:
        images: the number of images of each class.
        names: a digest of labels and file names, in data set order.
        content: a digest of the images; None if it was not computed.
    """

    images: tuple[int, ...]
    names: str
    content: str | None

    @classmethod
    def of(cls, dataset: Dataset, with_content: bool = True) -> Part:
        counts = np.bincount(dataset.labels, minlength=len(dataset.classes))
        content = content_digest(dataset) if with_content else None
        return cls(tuple(counts.tolist()), names_digest(dataset), content)


@dataclass(frozen=True)
class Contents:
    """The class names, in the order of the network's outputs, and the parts of the data.

    ``test`` is None without a third part.
    """

    classes: tuple[str, ...]
    train: Part
    evaluation: Part
    test: Part | None

    @classmethod
    def of(
        cls, train: Dataset, evaluation: Dataset, test: Dataset | None, with_content: bool = True
    ) -> Contents:
        """Describe the parts of a data set; ``with_content`` opens every file.

        Raises:
            UserError: a part has other classes than the training images, or another order.
        """
        for name, part in (("evaluation", evaluation), ("test", test)):
            if part is not None and part.classes != train.classes:
                difference = _difference_of_classes(train.classes, part.classes)
                raise UserError(
                    f"data: the {name} images need the classes of the training images in the same "
                    f"order: {difference}"
                )
        return cls(
            train.classes,
            Part.of(train, with_content),
            Part.of(evaluation, with_content),
            None if test is None else Part.of(test, with_content),
        )

    def difference(self, now: Contents) -> str | None:
        """The first difference between this and ``now``, in one line; None if there is none.

        Content is compared if both have it.
        """
        if self.classes != now.classes:
            return _difference_of_classes(self.classes, now.classes)
        return (
            _difference_of_parts("training", self.train, now.train, self.classes)
            or _difference_of_parts("evaluation", self.evaluation, now.evaluation, self.classes)
            or _difference_of_parts("test", self.test, now.test, self.classes)
        )


@dataclass(frozen=True)
class DataRecord:
    """The data that a network was trained on.

    Attributes:
        contents: classes and images.
        image_shape: ``(C, H, W)`` of the network's input in evaluation.
        stored_shape: ``(C, H, W)`` before preprocessing; None for image files, which may have any
            size.
        preprocessing: operations of the evaluation, as a config's ``augmentation.eval`` lists them,
            each with all its options; ``normalize`` has the numbers that were used.
        mean, std: of the training images, by channel, in units of 0..1; None if the config sets
            them.
    """

    contents: Contents
    image_shape: Shape
    stored_shape: Shape | None
    preprocessing: tuple[dict[str, dict[str, Any]], ...]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None

    @property
    def normalisation(self) -> tuple[Any, Any]:
        return self.mean, self.std

    @classmethod
    def read(cls, file: Path) -> DataRecord:
        """Read a file that `to_json` was written to.

        Raises:
            UserError: it is missing, or is no such file.
        """
        try:
            return cls.from_json(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"{file}: cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise UserError(f"{file}: {error}") from None

    @classmethod
    def from_json(cls, text: str) -> DataRecord:
        """The inverse of `to_json`; raises ValueError for another text."""
        try:
            value = json.loads(text)
            if value.pop("format") != FORMAT:
                raise ValueError(f"expected format {FORMAT}")
            contents = value["contents"]
            for name in ("train", "evaluation", "test"):
                contents[name] = contents[name] and Part(**_with_tuples(contents[name]))
            value["contents"] = Contents(**_with_tuples(contents))
            record = cls(**_with_tuples(value))
            _check(record)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not a record of data that this version can read: {error}") from None
        return record

    def to_json(self) -> str:
        """The record as JSON text."""
        return json_text({"format": FORMAT} | asdict(self))

    def difference(self, now: DataRecord) -> str | None:
        """The first difference between this and ``now``, in one line; None if there is none."""
        if found := self.contents.difference(now.contents):
            return found
        for field in fields(self)[1:]:
            was, is_now = getattr(self, field.name), getattr(now, field.name)
            if was != is_now:
                return f"{field.name} is {is_now}, and was {was}"
        return None


def _check(record: DataRecord) -> None:
    contents = record.contents
    parts = [part for part in (contents.train, contents.evaluation, contents.test) if part]
    numbers = [*record.image_shape, *(n for part in parts for n in part.images)]
    sound = (
        all(type(name) is str for name in contents.classes)
        and all(type(number) is int for number in numbers)
        and all(len(part.images) == len(contents.classes) for part in parts)
        and len(record.image_shape) == 3
    )
    if not sound:
        raise ValueError("its fields do not agree with each other")


def _with_tuples(value: dict[str, Any]) -> dict[str, Any]:
    """Turn JSON's lists into tuples, as the classes above have them."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}


def _difference_of_classes(was: tuple[str, ...], now: tuple[str, ...]) -> str:
    gone = [name for name in was if name not in now]
    new = [name for name in now if name not in was]
    found = [
        f"class {few(map(repr, names))} is {what}"
        for names, what in ((gone, "gone"), (new, "new"))
        if names
    ]
    return " and ".join(found) or "the classes have another order"


def _difference_of_parts(
    name: str, was: Part | None, now: Part | None, classes: tuple[str, ...]
) -> str | None:
    """The first difference in one part; the classes are the same."""
    if was is None or now is None:
        gone = f"the {name} part is {'new' if was is None else 'gone'}"
        return None if was is now else gone
    changed = [i for i in range(len(classes)) if was.images[i] != now.images[i]]
    if not changed:
        if was.names != now.names:
            return f"{name} images were renamed or replaced"
        if was.content and now.content and was.content != now.content:
            return (
                f"{name} images were changed or replaced under the same names "
                "(--set data.compare=names accepts them, and then compares no content)"
            )
        return None
    first, others = changed[0], len(changed) - 1
    more = f", and {others} more class{'es differ' if others > 1 else ' differs'}" if others else ""
    return (
        f"class {classes[first]!r} has {now.images[first]} {name} images instead of "
        f"{was.images[first]}{more}"
    )
