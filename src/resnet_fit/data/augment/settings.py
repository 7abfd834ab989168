"""The settings of augmentation: two lists of operations, mixing, image sizes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from resnet_fit.config import operations
from resnet_fit.config.problems import Problem
from resnet_fit.config.settings import AutoSwitch, NonNegative, PositiveInt, Settings, Share
from resnet_fit.data.augment.operation import Operation
from resnet_fit.errors import UserError

if TYPE_CHECKING:
    from resnet_fit.data.datasets import Data
    from resnet_fit.runs.config import Config


class Mixing(Settings):
    """Arguments of `resnet_fit.data.mixing.Mix`.

    Args:
        mixup: alpha of mixup (Zhang et al. 2017); 0 turns it off.
        cutmix: alpha of CutMix (Yun et al. 2019); 0 turns it off.
        share: the share of the batches that are mixed.
    """

    mixup: NonNegative = 0.0
    cutmix: NonNegative = 0.0
    share: Share = 1.0


class Progressive(Settings):
    """Small images first (Howard 2018; Tan and Le 2021).

    Args:
        start: pixels a side in the first epoch.
        until: the share of the training at which images have their full size.
        step: the size grows in steps of this many pixels.
    """

    start: PositiveInt
    until: Annotated[float, Field(gt=0, le=1)] = 0.75
    step: PositiveInt = 4


class Augmentation(Settings):
    """Augmentation and preprocessing of images.

    Args:
        train: operations of the training, in their order: names, or names with options.
        eval: operations of the evaluation.
        mix: mixes the images of a batch in pairs, and their labels.
        progressive: image sizes by epoch.
        on_device: whether the last operations of a list, and mixing, run on the network's device,
            which then gets images as bytes; ``auto`` on a GPU in half precision.
    """

    train: list[Any] = Field(default_factory=lambda: ["normalize"])
    eval: list[Any] = Field(default_factory=lambda: ["normalize"])
    mix: Mixing | None = None
    progressive: Progressive | None = None
    on_device: AutoSwitch = "auto"

    def problems(self, config: Config | None) -> Iterator[Problem]:
        for stage in ("train", "eval"):
            if not any("normalize" in entry for entry in getattr(self, stage)):
                message = "expected normalize, which turns pixel values into the network's input"
                yield Problem((stage,), message)
            elif config is not None:
                try:
                    config.data.check_operations(self.built(config.data, stage))
                except UserError as error:
                    yield Problem((stage,), str(error))

    def no_effect(self, config: Config) -> Iterator[Problem]:
        for i, operation in enumerate(self.built(config.data, "train")):
            if isinstance(operation, Operation) and operation.idle:
                yield Problem(("train", i), "with these options")
        mix = self.mix
        if mix is not None and (not mix.share or not (mix.mixup or mix.cutmix)):
            yield Problem(
                ("mix",), f"with mixup {mix.mixup:g}, cutmix {mix.cutmix:g} and share {mix.share:g}"
            )

    def built(self, data: Data, stage: str) -> list[Any]:
        """The operations of one stage, ``train`` or ``eval``."""
        return operations.build(getattr(self, stage), data.operations())

    def varies(self, data: Data) -> bool:
        """Whether two copies of an image may be augmented differently."""
        return any(
            not isinstance(op, Operation) or (op.draws and not (op.idle or op.alternates))
            for op in self.built(data, "train")
        )
