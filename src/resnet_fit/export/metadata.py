"""What a program must know of an exported network, in the file and beside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import paddle

from resnet_fit import __version__
from resnet_fit.config.operations import Entry, build
from resnet_fit.config.registry import parts
from resnet_fit.data.augment import Normalize
from resnet_fit.data.record import Shape
from resnet_fit.errors import UserError
from resnet_fit.export.request import Input
from resnet_fit.files import json_text
from resnet_fit.runs.open import OpenedRun

# To be raised when a field is added, or one gets another meaning.
FORMAT = 1
# Where an ONNX file has this text, among its `metadata_props`.
ONNX_KEY = "resnet_fit"


@dataclass(frozen=True)
class Metadata:
    """What an exported network takes and gives.

    Attributes:
        classes: their names, in the order of the outputs.
        input: ``uint8``, grey levels ``[N, H, W, C]``; or ``float32``, ``[N, C, H, W]`` normalised
            as in the training.
        image_shape: ``(C, H, W)`` of an image as the network sees it.
        stored_shape: the same of an image before ``preprocessing``; None for image files, which may
            be of any size.
        preprocessing: operations that are still to be done before, as ``data.json`` lists them.
        run: the name of its folder.
        checkpoint: of the run.
        resnet_fit, paddle: versions that it was exported by.
        output: what a row of the outputs is.
    """

    classes: tuple[str, ...]
    input: Input
    image_shape: Shape
    stored_shape: Shape | None
    preprocessing: tuple[Entry, ...]
    run: str
    checkpoint: str
    resnet_fit: str
    paddle: str
    output: str = "probabilities"

    @classmethod
    def of(cls, run: OpenedRun, input: Input, folder: Path, checkpoint: str) -> Metadata:
        """Of a run in ``folder``.

        Raises:
            UserError: ``input`` is ``uint8``, and an operation follows `Normalize`, which then is
                part of the network.
        """
        record = run.record
        before = record.preprocessing
        if input == "uint8":
            before = before[: normalisation(run)[0]]
        return cls(
            classes=run.classes,
            input=input,
            image_shape=record.image_shape,
            stored_shape=record.stored_shape,
            preprocessing=before,
            run=folder.resolve().name,
            checkpoint=checkpoint,
            resnet_fit=__version__,
            paddle=paddle.__version__,
        )

    @classmethod
    def from_json(cls, text: str) -> Metadata:
        """The inverse of `to_json`; raises ValueError for another text."""
        try:
            value: Any = json.loads(text)
            if value.pop("format") != FORMAT:
                raise ValueError(f"expected format {FORMAT}")
            fields: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
            return cls(**fields)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"no metadata that this version can read: {error}") from None

    def to_json(self) -> str:
        """As text: see the attributes for what it holds."""
        return json_text({"format": FORMAT} | asdict(self))

    def operations(self) -> list[Any]:
        """What is to be done to an image before; own operations must have been imported."""
        known: Mapping[str, Callable[..., Any]] = parts("augmentation")
        if self.stored_shape is None:
            known = {**known, **parts("transform")}
        return build(self.preprocessing, known)


def normalisation(run: OpenedRun) -> tuple[int, Normalize]:
    """Where in a run's preprocessing its images are normalised, and how.

    Raises:
        UserError: an operation comes after it.
    """
    entries = run.record.preprocessing
    operations = build(entries, run.config.data.operations())
    place = next(i for i, each in enumerate(operations) if isinstance(each, Normalize))
    if place + 1 < len(entries):
        ((late, _),) = entries[place + 1].items()
        raise UserError(
            f"augmentation.eval: {late} comes after normalize, which is computed within the "
            "exported network; export with --input float32, and do both before it"
        )
    return place, operations[place]
