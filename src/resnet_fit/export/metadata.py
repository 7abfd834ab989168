"""The metadata of an exported network, stored in the file and beside it.

Does not import Paddle: a program that runs an ONNX file does not need it.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from resnet_fit.config.operations import build, parse
from resnet_fit.config.problems import problems_of
from resnet_fit.data.preparing import Preparation, Shape, known_operations
from resnet_fit.files import json_text

# The key of this text in an ONNX file's `metadata_props`.
ONNX_KEY = "resnet_fit"


class Metadata(BaseModel):
    """Input, output and origin of an exported network.

    Attributes:
        format: raised when a field is added or changes its meaning.
        classes: their names, in the order of the outputs.
        input: ``uint8``, pixel values 0 to 255, ``[N, H, W, C]``; or ``float32``, ``[N, C, H, W]``
            normalised as in the training.
        image_shape: ``(C, H, W)`` of the network's input.
        stored_shape: ``(C, H, W)`` before ``preprocessing``; None for image files, which may have
            any size.
        preprocessing: operations that a program must apply before, as listed in ``data.json``.
        output: the meaning of the outputs.
        run: the name of the run's folder.
        checkpoint, epoch: of the run.
        average: whether the weights are the averaged ones.
        resnet_fit, paddle: versions that exported it.
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
    epoch: int | None = None
    average: bool = False
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
        """The metadata as JSON text."""
        return json_text(self.model_dump(mode="json"))

    def operations(self) -> list[Any]:
        """The preprocessing operations; a user's own operations must be imported before.

        Raises:
            ValueError: an unknown operation or option.
        """
        known = known_operations(self.stored_shape)
        entries, problems = parse(list(self.preprocessing), known, ("preprocessing",))
        if problems:
            raise ValueError(f"{'.'.join(map(str, problems[0].path))}: {problems[0].message}")
        return build(entries, known)

    def preparation(self) -> Preparation:
        """The preprocessing of image files; raises ValueError as `operations` does."""
        return Preparation(tuple(self.operations()), self.image_shape, self.stored_shape)
