"""What every network has: weights to start from, and layers that stay as they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field, PlainValidator

from resnet_fit.config.problems import Problem
from resnet_fit.config.settings import Part, absolute

if TYPE_CHECKING:
    from paddle import nn

    from resnet_fit.runs.config import Config


# Instead of a file: the weights that paddle.vision publishes for its own network of this kind.
IMAGENET = "imagenet"
Weights = Annotated[str, AfterValidator(lambda v: v if v == IMAGENET else absolute(v))]


class Network(Part):
    """A network for images ``[N, C, H, W]`` that gives logits ``[N, classes]``.

    Args:
        weights: a file or a run to take weights from, or ``imagenet`` for those that paddle.vision
            publishes; if they have other classes, the last layer starts afresh.
        freeze: layers that stay as they are, such as ``[conv1, layer1]``; ``backbone`` is every
            layer but the last.
    """

    weights: Weights | None = None
    freeze: list[str] = Field(default_factory=list)

    def problems(self, config: Config | None) -> Iterator[Problem]:
        if self.freeze and self.weights is None:
            yield Problem(
                ("freeze",),
                "needs model.weights: what is frozen would stay at its random start",
            )
        if self.weights == IMAGENET:
            yield from self.imagenet_problems()

    def imagenet_problems(self) -> Iterator[Problem]:
        """Why ``weights: imagenet`` do not fit these settings."""
        yield Problem(("weights",), f"imagenet: there are none for {self.part_name}; give a file")

    def imagenet_name(self) -> str:
        """What paddle.vision calls this network, where there are no `imagenet_problems`."""
        raise NotImplementedError

    def whitened(self) -> str | None:
        """The convolution that is to whiten the training images, if any."""
        return None

    def build(self, classes: int, channels: int) -> nn.Layer:
        """A network with new weights.

        Args:
            classes: of the data.
            channels: of its images.

        Raises:
            UserError: these settings do not go together.
        """
        raise NotImplementedError


def other_than_published(key: str, received: object, expected: object) -> Problem:
    """A setting that weights for ImageNet do not have."""
    return Problem(
        (key,), f"received {received}, expected {expected}, as weights: imagenet are published"
    )


def as_count(value: Any) -> int | None:
    """A whole number of at least 1 as an int, whatever its type; None for all else, and for True.

    NumPy's integers are not Python's: Paddle's layers refuse them.
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    return int(value) if whole and value >= 1 else None


def _count_or_counts(expected: str) -> PlainValidator:
    """One message for both forms, where a union would give one for each."""

    def check(value: Any) -> int | list[int]:
        is_list = isinstance(value, (list, tuple))
        counts = [count for item in (value if is_list else [value]) if (count := as_count(item))]
        if not counts or len(counts) < (len(value) if is_list else 1):
            raise ValueError(f"expected {expected}")
        return counts if is_list else counts[0]

    return PlainValidator(check)


Depth = Annotated[
    int | list[int],
    _count_or_counts("a depth such as 50, or a list of sizes such as [2, 2, 2, 2]"),
]
Width = Annotated[
    int | list[int],
    _count_or_counts("a width such as 64, or one for each stage such as [64, 128, 256]"),
]


def nearest(depth: int, valid: Sequence[int]) -> int:
    """The number nearest to a depth that does not exist."""
    return min(valid, key=lambda candidate: abs(candidate - depth))
