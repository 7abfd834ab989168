"""A training step in a process of its own, with some settings left out, for `doctor` to time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from resnet_fit.child import code_for_child
from resnet_fit.reports.alternation import Side, serve
from resnet_fit.runtime import find_settings

IMAGES, PIXELS, CLASSES = 8, 32, 10
STEP = f"a training step of ResNet-10 on {IMAGES} images of {PIXELS} pixels, on the CPU"


@dataclass(frozen=True)
class Trial:
    """The conditions under which the step is timed.

    Attributes:
        backend: ``paddle`` or ``onednn``.
        dtype: of the activations by ``onednn``.
        without: environment variables that are left unset.
    """

    backend: str
    dtype: str = "float32"
    without: frozenset[str] = frozenset()

    def start(self) -> Side:
        """A process that repeats the step."""
        code = code_for_child(f"from {__name__} import main; main(*sys.argv[2:])")
        arguments = [self.backend, self.dtype, *sorted(self.without)]
        return Side(f"-c{code}", arguments, dict.fromkeys(self.without))


def make_step(backend: str, dtype: str) -> Callable[[], object]:
    """A step of Momentum on random images."""
    import paddle

    from resnet_fit import resnet
    from resnet_fit.backends import use_backend

    paddle.set_device("cpu")
    network = resnet([1, 1, 1, 1], CLASSES, "cifar")
    use_backend(network, backend, dtype)
    optimizer = paddle.optimizer.Momentum(0.01, parameters=network.parameters())
    images, labels = paddle.rand([IMAGES, 3, PIXELS, PIXELS]), paddle.randint(0, CLASSES, [IMAGES])

    def step() -> None:
        loss = paddle.nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        float(loss)

    return step


def main(backend: str, dtype: str, *without: str) -> None:
    for setting in find_settings():
        if setting.variable not in without:
            setting.apply()
    serve(make_step(backend, dtype))
