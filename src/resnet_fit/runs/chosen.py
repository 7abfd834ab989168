"""Which weights of a checkpoint are meant; answers without Paddle."""

from __future__ import annotations

from resnet_fit.checkpoints.files import AVERAGE, WEIGHTS
from resnet_fit.errors import UserError
from resnet_fit.runs.config import Config


def weights_name(config: Config, average: bool | None) -> str:
    """The file of a checkpoint with its weights or, where ``average`` is true, their average.

    By default the average where the best epoch was chosen by it.

    Raises:
        UserError: the run keeps no average.
    """
    kept = config.averages_weights
    if average and not kept:
        raise UserError("average: this run was trained without callbacks.weight_average")
    if average is None:
        average = kept and config.checkpoint.monitor.startswith("ema_")
    return AVERAGE if average else WEIGHTS
