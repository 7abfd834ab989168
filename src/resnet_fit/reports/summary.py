"""A config's network: its layers, size and work, a step's memory, and what its stages see."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from rich.console import Console

from resnet_fit.backends import choose_backend
from resnet_fit.data.make_loaders import look
from resnet_fit.errors import UserError
from resnet_fit.files import json_text, no_new_files
from resnet_fit.networks.complexity import (
    LayerCost,
    count_buffers,
    count_frozen,
    count_parameters,
    layer_costs,
)
from resnet_fit.networks.receptive_field import Field, receptive_fields
from resnet_fit.reports.memory import StepMemory, estimate_memory
from resnet_fit.reports.table import print_table
from resnet_fit.runs.config import Config
from resnet_fit.runs.experiment import make_network, start_from
from resnet_fit.runtime import choose_device
from resnet_fit.training.precision import check_precision, use_precision

Shape = tuple[int, int, int]
# Columns of a terminal from which on the kinds of layers are shown.
ROOM_FOR_KINDS = 70


@dataclass(frozen=True)
class NetworkSummary:
    """What a network is.

    Attributes:
        image_shape: ``(C, H, W)``.
        batch_size: images of the step that ``memory`` is of.
        layers: as `layer_costs` gives them.
        trained, frozen: parameters.
        buffers: numbers beside them, as running statistics.
        fields: of the stages, as `receptive_fields` gives them.
        computing: device, backend and precision that ``memory`` is of, for people to read.
        memory: of a training step; None with a static graph, which keeps what Paddle decides.
    """

    classes: int
    image_shape: Shape
    batch_size: int
    layers: list[LayerCost]
    trained: int
    frozen: int
    buffers: int
    fields: dict[str, Field]
    computing: str
    memory: StepMemory | None

    @property
    def macs(self) -> int:
        return sum(layer.macs or 0 for layer in self.layers)

    @property
    def not_counted(self) -> list[str]:
        """Layers whose work cannot be told."""
        return [layer.name for layer in self.layers if layer.macs is None]

    def to_json(self) -> str:
        """All of it as one JSON object."""
        return json_text(
            {
                "classes": self.classes,
                "image_shape": self.image_shape,
                "batch_size": self.batch_size,
                "parameters": {"trained": self.trained, "frozen": self.frozen},
                "buffers": self.buffers,
                "macs": self.macs,
                "macs_not_counted": self.not_counted,
                "computing": self.computing,
                "memory": self.memory and {**asdict(self.memory), "total": self.memory.total},
                "stages": [{"name": name, **asdict(f)} for name, f in self.fields.items()],
                "layers": [asdict(layer) for layer in self.layers],
            }
        )

    def print(self, console: Console) -> None:
        """Tables and totals for people."""
        self._print_layers(console)
        stages = [
            (name, _by(field.size), _by(field.stride), self._share(field))
            for name, field in self.fields.items()
        ]
        if stages:
            header = ("stage", "receptive field", "stride", "of the image")
            print_table(console, header, stages, numbers=(1, 2, 3))
        frozen = f", {self.frozen:,} frozen" if self.frozen else ""
        console.print(
            f"{self.trained:,} parameters trained{frozen}; {self.buffers:,} numbers in buffers"
        )
        missing = self.not_counted
        without = f", without {', '.join(missing)}: their work is not known" if missing else ""
        console.print(
            f"{self.macs / 1e9:.3f} GMACs (multiply-accumulates) for an image of "
            f"{_by(self.image_shape)}{without}"
        )
        self._print_memory(console)

    def _print_layers(self, console: Console) -> None:
        roomy = not console.is_terminal or console.width >= ROOM_FOR_KINDS
        header = ["layer", "kind", "output", "parameters", "MACs"]
        rows = [
            [
                layer.name or "(network)",
                layer.kind,
                "not called" if layer.output is None else _by(layer.output),
                f"{layer.parameters:,}",
                "?" if layer.macs is None else f"{layer.macs:,}",
            ]
            for layer in self.layers
        ]
        if not roomy:
            header, rows = [header[0], *header[2:]], [[row[0], *row[2:]] for row in rows]
        width = len(header)
        print_table(console, header, rows, numbers=(width - 2, width - 1))

    def _share(self, field: Field) -> str:
        """How much of an image a value in its middle sees."""
        sides = zip(field.size, self.image_shape[1:], strict=True)
        share = math.prod(min(1.0, seen / side) for seen, side in sides)
        return f"{share:.0%}" if share >= 0.005 else "<1%"

    def _print_memory(self, console: Console) -> None:
        if self.memory is None:
            console.print("memory is not estimated with training.compile")
            return
        parts = ", ".join(
            f"{name} {bytes_ / 1e6:,.1f}" for name, bytes_ in asdict(self.memory).items() if bytes_
        )
        console.print(
            f"about {self.memory.total / 1e6:,.0f} MB for a training step of {self.batch_size} "
            f"images ({self.computing}): {parts}"
        )


def summarize(
    config: Config,
    classes: int | None = None,
    image_shape: Shape | None = None,
    batch_size: int | None = None,
) -> NetworkSummary:
    """Build a config's network and look at it. Writes nothing, and needs no weights.

    Args:
        config: the experiment.
        classes, image_shape: of the data; looked up there where one is left out.
        batch_size: of the memory's estimate; the config's by default.

    Raises:
        UserError: the data are needed and not there, or the network does not take such images.
    """
    if classes is None or image_shape is None:
        there = _look(config)
        classes, image_shape = classes or there[0], image_shape or there[1]
    device, backend, precision = _where(config)
    network = make_network(config, classes, image_shape[0])
    start_from(network, config, classes, image_shape[0], with_weights=False)
    batch_size = batch_size or config.data.batch_size
    layers, fields = layer_costs(network, image_shape), receptive_fields(network, image_shape)
    memory = None
    if config.training.compile in ("auto", "off"):
        backend = choose_backend(backend, device, network=network, precision=precision)
        use_precision(precision, network, backend)
        slots, averages = config.optimizer.slots, config.averages_weights
        memory = estimate_memory(network, image_shape, batch_size, slots, averages)
    return NetworkSummary(
        classes=classes,
        image_shape=image_shape,
        batch_size=batch_size,
        layers=layers,
        trained=count_parameters(network),
        frozen=count_frozen(network),
        buffers=count_buffers(network),
        fields=_widening(fields),
        computing=f"{device}, {backend} backend, {precision}",
        memory=memory,
    )


def _look(config: Config) -> tuple[int, Shape]:
    try:
        with no_new_files():
            return look(config)
    except UserError as error:
        raise UserError(
            f"{str(error).rstrip('.')}; or give --classes N and --image CxHxW"
        ) from None


def _where(config: Config) -> tuple[str, str, str]:
    """The config's device, backend and precision; a CPU's where this machine does not have them."""
    training = config.training
    try:
        device = choose_device(training.device)
        check_precision(training.precision, device, choose_backend(training.backend, device))
    except UserError:
        return choose_device("cpu"), "paddle", "float32"
    return device, training.backend, training.precision


def _widening(fields: dict[str, Field]) -> dict[str, Field]:
    """Without the norms and others that see what the layer before them sees."""
    kept: dict[str, Field] = {}
    for name, field in fields.items():
        if field not in list(kept.values())[-1:]:
            kept[name] = field
    return kept


def _by(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))
