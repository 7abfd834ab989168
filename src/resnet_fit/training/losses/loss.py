"""What every loss has: smoothed labels, and classes that weigh more than others."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import PlainValidator

from resnet_fit.config.problems import Problem
from resnet_fit.config.settings import Below1, Part
from resnet_fit.errors import UserError

if TYPE_CHECKING:
    from paddle import nn

    from resnet_fit.runs.config import Config


def _class_weights(value: Any) -> str | list[float] | None:
    if value is None or value == "balanced":
        return value
    if isinstance(value, list) and value and all(_is_weight(number) for number in value):
        return value
    raise ValueError("expected balanced, or a list with a number above 0 for each class")


def _is_weight(number: Any) -> bool:
    return type(number) in (int, float) and 0 < number < math.inf


class Loss(Part):
    """What a training minimises.

    Args:
        label_smoothing: the share of the uniform distribution mixed into the labels (Szegedy et al.
            2015, section 7).
        class_weights: a factor for the loss of each class, or ``balanced``, which makes up for
            unequal numbers of images.
    """

    label_smoothing: Below1 = 0.0
    class_weights: Annotated[Any, PlainValidator(_class_weights)] = None

    def no_effect(self, config: Config) -> Iterator[Problem]:
        if isinstance(self.class_weights, list) and set(self.class_weights) == {1}:
            yield Problem(("class_weights",), "every class has weight 1")

    def build(self, labels: np.ndarray, classes: int) -> nn.Layer:
        """A loss of logits ``[N, C]`` and labels, the mean of its ``per_sample(logits, labels)``.

        Args:
            labels: of the training set, int ``[N]``, for ``class_weights: balanced``.
            classes: how many there are.

        Raises:
            UserError: there are fewer or more class weights than classes.
        """
        raise NotImplementedError

    def weights(self, labels: np.ndarray, classes: int) -> list[float] | None:
        """The factor of each class.

        Raises:
            UserError: there are fewer or more than classes.
        """
        if self.class_weights == "balanced":
            return balanced_weights(labels, classes)
        if self.class_weights is not None and len(self.class_weights) != classes:
            raise UserError(
                f"loss.class_weights: received {len(self.class_weights)}, and the data have "
                f"{classes} classes"
            )
        return self.class_weights


def balanced_weights(labels: np.ndarray, classes: int) -> list[float]:
    """A weight for each class by which all add as much to the loss; their mean over samples is 1.

    A class that does not occur has weight 1.
    """
    counts = np.bincount(labels, minlength=classes)
    present = np.count_nonzero(counts)
    return [len(labels) / (present * n) if n else 1.0 for n in counts.tolist()]
