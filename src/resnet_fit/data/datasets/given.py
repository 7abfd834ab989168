"""Images in memory that a Python program passes to `fit`."""

from __future__ import annotations

from resnet_fit.config.registry import part
from resnet_fit.data.datasets.data import Data, Dataset
from resnet_fit.errors import UserError


@part("data", "given")
class Given(Data):
    """The images in memory that a Python program passes to `fit`."""

    def load(self) -> tuple[Dataset, Dataset]:
        raise UserError(
            "data: {name: given} stands for images that a Python program passes; call "
            "fit(config, data=(train, held_out)) or resume(folder, data=...) in that program"
        )
