"""Images in memory that a Python program passes to `fit`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from resnet_fit.config.problems import Problem
from resnet_fit.config.registry import part
from resnet_fit.data.datasets.data import Data, Dataset
from resnet_fit.errors import UserError

if TYPE_CHECKING:
    from resnet_fit.runs.config import Config


@part("data", "given")
class Given(Data):
    """The images in memory that a Python program passes to `fit`."""

    def problems(self, config: Config | None) -> Iterator[Problem]:
        """Data that are handed over are used as they are."""
        yield from super().problems(config)
        for key in ("validation", "limit", "split_seed"):
            value = getattr(self, key)
            if value != type(self).model_fields[key].default:
                yield Problem(
                    (key,),
                    f"received {value}, but data that a program passes are used as they are; "
                    "divide them there",
                )

    def load(self) -> tuple[Dataset, Dataset]:
        raise UserError(
            "data: {name: given} stands for images that a Python program passes; call "
            "fit(config, data=(train, held_out)) or resume(folder, data=...) in that program"
        )
