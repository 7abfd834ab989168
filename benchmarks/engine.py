"""Training steps: this library, Paddle as installed, and PyTorch, on the same network and batch.

    python benchmarks/engine.py [--quick]

Sides: ``ours`` and ``ours_bf16`` are `paddle.Model.train_batch` as a run of this library does it;
``paddle`` is a loop written by hand with Paddle's default settings; ``torch`` and ``torch_bf16``
(where PyTorch is installed) the same loop in channels-last, the second under autocast.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from alternate import WORKER, Side, alternate, machine, report, serve

NETWORKS: dict[str, tuple[str, dict[str, Any], int, int, int]] = {
    # name: function that builds it, its options, pixels, batch, batch with --quick
    "resnet18_cifar": ("resnet", {"depth": 18, "num_classes": 10, "stem": "cifar"}, 32, 128, 64),
    "resnet20": ("resnet", {"depth": 20, "num_classes": 10, "stem": "cifar3"}, 32, 128, 128),
    "resnet50": ("resnet", {"depth": 50}, 224, 16, 8),
    "densenet_bc100": ("densenet", {"depth": 100, "num_classes": 10, "stem": "cifar"}, 32, 64, 64),
    "densenet121": ("densenet", {"depth": 121}, 224, 16, 8),
}
UNTOUCHED = {"OMP_NUM_THREADS": None, "MKL_DEBUG_CPU_TYPE": None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller batches, 2 rounds")
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=NETWORKS)
    quick = parser.parse_args().quick
    print(machine())
    ratios: dict[str, float] = {}
    for name in parser.parse_args().networks:
        *_, full_batch, quick_batch = NETWORKS[name]
        batch = quick_batch if quick else full_batch
        names = ["ours", "ours_bf16", "paddle"]
        if importlib.util.find_spec("torch"):
            names += ["torch", "torch_bf16"]
        sides = {
            side: Side(__file__, [side, name, str(batch)], UNTOUCHED if side == "paddle" else {})
            for side in names
        }
        seconds = alternate(sides, rounds=2 if quick else 7)
        for side, median in seconds.items():
            print(f"{name:15} batch {batch:4} {side:11} {batch / median:8.1f} images/s")
        ratios[f"{name}_vs_paddle"] = seconds["paddle"] / seconds["ours"]
        ratios[f"{name}_bf16_vs_paddle"] = seconds["paddle"] / seconds["ours_bf16"]
        if "torch" in seconds:
            ratios[f"{name}_vs_torch_fp32"] = seconds["torch"] / seconds["ours"]
            ratios[f"{name}_vs_torch_bf16"] = seconds["torch_bf16"] / seconds["ours_bf16"]
    report("engine", **ratios)


def worker(side: str, name: str, batch: int) -> None:
    kind, options, pixels, *_ = NETWORKS[name]
    rng = np.random.default_rng(0)
    images = rng.normal(size=(batch, 3, pixels, pixels)).astype("float32")
    labels = rng.integers(0, options.get("num_classes", 1000), batch)
    make = {"paddle": _paddle, "torch": _torch, "torch_bf16": _torch}.get(side, _ours)
    serve(make(side, kind, options, images, labels))


def _ours(
    side: str, kind: str, options: dict[str, Any], images: np.ndarray, labels: np.ndarray
) -> Callable:
    from resnet_fit.runtime import prepare_environment

    prepare_environment()
    import paddle

    from resnet_fit import CrossEntropy, classification_metrics, networks
    from resnet_fit.config.schema import Momentum
    from resnet_fit.engines import choose_engine, use_engine
    from resnet_fit.training import make_optimizer

    network = getattr(networks, kind)(**options)
    engine = choose_engine("auto", "cpu")
    use_engine(network, engine, "bfloat16" if side.endswith("bf16") else "float32")
    loss = CrossEntropy()
    settings = Momentum(name="momentum", learning_rate=0.01, nesterov=True, weight_decay=5e-4)
    model = paddle.Model(network)
    metrics = classification_metrics(loss, options.get("num_classes", 1000))
    model.prepare(make_optimizer(network, settings, 0.01), loss, metrics)
    return lambda: model.train_batch([images], [labels])


def _paddle(
    side: str, kind: str, options: dict[str, Any], images: np.ndarray, labels: np.ndarray
) -> Callable:
    import paddle

    from resnet_fit import networks

    network = getattr(networks, kind)(**options)
    optimizer = paddle.optimizer.Momentum(
        0.01, 0.9, network.parameters(), use_nesterov=True, weight_decay=5e-4
    )
    x, y = paddle.to_tensor(images), paddle.to_tensor(labels)

    def step() -> None:
        loss = paddle.nn.functional.cross_entropy(network(x), y)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        float(loss)

    return step


def _torch(
    side: str, kind: str, options: dict[str, Any], images: np.ndarray, labels: np.ndarray
) -> Callable:
    import torch
    from torch_densenet import DenseNet
    from torch_resnet import ResNet

    network: torch.nn.Module = (DenseNet if kind == "densenet" else ResNet)(**options)
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        network.parameters(), 0.01, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    x = torch.from_numpy(images).to(memory_format=torch.channels_last)
    y = torch.from_numpy(labels)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=side.endswith("bf16")):
            logits = network(x)
        loss = torch.nn.functional.cross_entropy(logits.float(), y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        loss.item()

    return step


if __name__ == "__main__":
    if sys.argv[1:2] == [WORKER]:
        worker(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main()
