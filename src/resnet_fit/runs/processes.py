"""What a config may ask for where several processes train it. Nothing here imports Paddle."""

from __future__ import annotations

from resnet_fit.errors import UserError
from resnet_fit.runs.config import Config


def check_processes(config: Config, processes: int) -> None:
    """Refuse what several processes cannot train as one does.

    Raises:
        UserError: with the way out.
    """
    training, data = config.training, config.data
    if training.accumulate % processes:
        images = data.batch_size * training.accumulate
        fits = images % processes == 0 and training.accumulate == 1
        way = (
            f"training.accumulate={processes} data.batch_size={images // processes} trains on as "
            "many images a step, of which a batch norm then sees fewer; "
            if fits
            else ""
        )
        raise UserError(
            f"training.accumulate: received {training.accumulate}, expected a multiple of the "
            f"{processes} processes, to which the batches of a step are dealt; {way}or start "
            "another number of processes"
        )
    refused = {
        "training.on_nan: skip": training.on_nan == "skip",
        "data.on_bad_image: skip": getattr(data, "on_bad_image", None) == "skip",
        "callbacks.adapt_threads": config.callbacks.get("adapt_threads") is not None,
        f"training.compile: {training.compile}": training.compile in ("static", "cinn"),
        f"training.device: {training.device}": ":" in training.device,
    }
    for setting, is_set in refused.items():
        if is_set:
            raise UserError(f"{setting} works in one process alone, and there are {processes}")
