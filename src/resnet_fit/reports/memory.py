"""How much memory a training step needs, without making one."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from resnet_fit.networks.complexity import count_buffers, count_frozen, count_parameters, in_mode

Shape = tuple[int, int, int]

# Weights, their gradients, the optimizer's state and images.
FLOAT32 = 4


@dataclass(frozen=True)
class StepMemory:
    """Bytes that a training step holds at most, by what they are for.

    Gradients are counted whole beside all activations, though most of them come while activations
    go: it is that way where gradients stay from step to step, as `paddle.Model` lets them.

    Attributes:
        weights: parameters, and running statistics.
        average: of the weights, where they are averaged.
        gradients: of what is trained.
        optimizer: its state.
        images: of the batch.
        activations: what the forward pass keeps for the backward pass.
        work: the gradient of the largest activation, which is there beside it for a while.
    """

    weights: int
    average: int
    gradients: int
    optimizer: int
    images: int
    activations: int
    work: int

    @property
    def total(self) -> int:
        return sum(asdict(self).values())


def estimate_memory(
    network: nn.Layer, image_shape: Shape, batch_size: int, slots: int = 1, averages: bool = False
) -> StepMemory:
    """What a training step of a network would hold, as the network computes now.

    Activations are measured by forward passes of two and of three images. The difference is the
    share of one image.

    Args:
        network: its running statistics are put back.
        image_shape: ``(C, H, W)``.
        batch_size: images of a step.
        slots: numbers that the optimizer keeps for each trained parameter.
        averages: whether an average of the weights is kept.
    """
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    two, three = (_kept_for_backward(network, image_shape, images) for images in (2, 3))
    network.set_state_dict(before)
    (all_two, largest_two), (all_three, largest_three) = two, three
    trained = FLOAT32 * count_parameters(network)
    weights = trained + FLOAT32 * (count_frozen(network) + count_buffers(network))
    return StepMemory(
        weights=weights,
        average=weights if averages else 0,
        gradients=trained,
        optimizer=slots * trained,
        images=FLOAT32 * batch_size * math.prod(image_shape),
        activations=_at(batch_size, all_two, all_three),
        work=_at(batch_size, largest_two, largest_three),
    )


def _at(images: int, two: int, three: int) -> int:
    """The straight line through what two and three images need."""
    return two + (images - 2) * (three - two)


def _kept_for_backward(network: nn.Layer, image_shape: Shape, images: int) -> tuple[int, int]:
    """Bytes of all tensors that one forward pass keeps for the backward pass, and of the largest.

    A tensor that several operations keep counts once; weights do not count.
    """
    weights = {parameter.data_ptr() for parameter in network.parameters()}
    sizes: dict[int, int] = {}
    held: list[Tensor] = []  # so that no memory is used a second time meanwhile

    def pack(tensor: Tensor) -> int:
        address = tensor.data_ptr()
        if address not in weights:
            size = math.prod(tensor.shape) * tensor.element_size()
            sizes[address] = max(size, sizes.get(address, 0))
        held.append(tensor)
        return len(held) - 1  # in the tensor's place: Paddle would never let go of that

    try:
        with (
            in_mode(network, training=True),
            paddle.autograd.saved_tensors_hooks(pack, held.__getitem__),
        ):
            logits = network(paddle.zeros([images, *image_shape]))
            F.cross_entropy(logits, paddle.zeros([images], "int64"))
    finally:
        held.clear()
    return sum(sizes.values()), max(sizes.values(), default=0)
