"""What a program must know of an exported network, in the file and beside it.

Answers without Paddle: a program that runs an ONNX file needs none.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from resnet_fit.config.operations import build, parse
from resnet_fit.config.problems import problems_of
from resnet_fit.data.preparing import Preparation, Shape, known_operations
from resnet_fit.files import json_text

# Where an ONNX file has this text, among its `metadata_props`.
ONNX_KEY = "resnet_fit"


class Metadata(BaseModel):
    """What an exported network takes and gives.

    Attributes:
        format: to be raised when a field is added, or one gets another meaning.
        classes: their names, in the order of the outputs.
        input: ``uint8``, grey levels ``[N, H, W, C]``; or ``float32``, ``[N, C, H, W]`` normalised
            as in the training.
        image_shape: ``(C, H, W)`` of an image as the network sees it.
        stored_shape: the same of an image before ``preprocessing``; None for image files, which may
            be of any size.
        preprocessing: operations that are still to be done before, as ``data.json`` lists them.
        output: what a row of the outputs is.
        run: the name of its folder.
        checkpoint: of the run.
        resnet_fit, paddle: versions that it was exported by.
    """

    model_config = ConfigDict(frozen=True)

    format: Literal[1]
    classes: tuple[str, ...]
    input: Literal["uint8", "float32"]
    image_shape: Shape
    stored_shape: Shape | None
    preprocessing: tuple[dict[str, dict[str, Any]], ...]
    output: Literal["probabilities"]
    run: str = ""
    checkpoint: str = ""
    resnet_fit: str = ""
    paddle: str = ""

    @classmethod
    def from_json(cls, text: str) -> Metadata:
        """The inverse of `to_json`; raises ValueError, in one line, for another text."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = problems_of(error, cls)[0]
        place = ".".join(map(str, (ONNX_KEY, *first.path)))
        raise ValueError(f"metadata that this version cannot read: {place}: {first.message}")

    def to_json(self) -> str:
        """As text: see the attributes for what it holds."""
        return json_text(self.model_dump(mode="json"))

    def operations(self) -> list[Any]:
        """What is to be done to an image before; own operations must have been imported.

        Raises:
            ValueError: one that is not known, or has other options.
        """
        known = known_operations(self.stored_shape)
        entries, problems = parse(list(self.preprocessing), known, ("preprocessing",))
        if problems:
            raise ValueError(f"{'.'.join(map(str, problems[0].path))}: {problems[0].message}")
        return build(entries, known)

    def preparation(self) -> Preparation:
        """The same for an image file; raises ValueError as `operations` does."""
        return Preparation(tuple(self.operations()), self.image_shape, self.stored_shape)
