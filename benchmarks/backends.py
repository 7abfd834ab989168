"""Training steps: this library, Paddle as installed, and PyTorch, on the same network and batch.

    python benchmarks/backends.py [--quick] [--processes 5] [--beside-busy]

Sides: ``ours`` and ``ours_bf16`` are `paddle.Model.train_batch` as a run of this library does it;
``paddle`` is a loop written by hand with Paddle's default settings; ``torch`` and ``torch_bf16``
(where PyTorch is installed) the same loop in channels-last, the second under autocast. Those in
bfloat16 are left out on a processor that has none. One process of a side may be faster than the
next by a third: ``--processes`` starts each side anew so many times, and the median of their images
per second counts; the range of each ratio is printed beside it.

With ``--beside-busy``: what is left of each side's images per second beside a process that keeps
one core busy. ``ours`` has a fixed number of threads there, and ``adaptive`` the callback of
``callbacks.adapt_threads``.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
from alternate import WORKER, Side, alternate, machine, report, serve

from resnet_fit.machine import has_bfloat16

RESNET, DENSENET = {"name": "resnet"}, {"name": "densenet"}
NETWORKS: dict[str, tuple[dict[str, Any], int, int, int]] = {
    # name: the network as a config names it, pixels, batch, batch with --quick
    "resnet18_cifar": ({**RESNET, "depth": 18, "num_classes": 10, "stem": "cifar"}, 32, 128, 64),
    "resnet20": ({**RESNET, "depth": 20, "num_classes": 10, "stem": "cifar3"}, 32, 128, 128),
    "resnet50": ({**RESNET, "depth": 50}, 224, 16, 8),
    "densenet_bc100": (
        {**DENSENET, "depth": 100, "num_classes": 10, "stem": "cifar"},
        32,
        64,
        64,
    ),
    "densenet121": ({**DENSENET, "depth": 121}, 224, 16, 8),
}
UNTOUCHED = {"OMP_NUM_THREADS": None, "MKL_DEBUG_CPU_TYPE": None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="ResNets, smaller batches, 2 rounds")
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, help="all by default")
    parser.add_argument("--processes", type=int, default=1, help="of each side, one after another")
    parser.add_argument("--beside-busy", action="store_true", help="with one core taken; ResNet-20")
    options = parser.parse_args()
    rounds = 2 if options.quick else 7
    if options.beside_busy:
        names = options.networks or ["resnet20"]
        report("backend_beside_busy", **compare_beside_busy(names, options.quick, rounds))
        return
    names = options.networks or [
        name
        for name, (model, *_) in NETWORKS.items()
        if model["name"] == "resnet" or not options.quick
    ]
    report("backend", **compare(__file__, names, options.quick, rounds, options.processes))


def compare(
    script: str, networks: list[str], quick: bool, rounds: int, processes: int
) -> dict[str, float]:
    """Time what a script does with a batch, by each side, and print and return the ratios."""
    print(machine())
    found: dict[str, float] = {}
    for name in networks:
        _, _, full_batch, quick_batch = NETWORKS[name]
        batch = quick_batch if quick else full_batch
        taken = []
        for _ in range(processes):
            sides = {
                side: Side(script, [side, name, str(batch)], UNTOUCHED if side == "paddle" else {})
                for side in side_names()
            }
            taken.append(alternate(sides, rounds))
        seconds = {side: statistics.median(t[side] for t in taken) for side in taken[0]}
        for side, median in seconds.items():
            told = spread([batch / t[side] for t in taken], 1)
            print(f"{name:15} batch {batch:4} {side:11} {batch / median:8.1f} images/s{told}")
        found |= ratios(name, seconds)
        if processes > 1:
            each = [ratios(name, t) for t in taken]
            for what in each[0]:
                print(f"{what}: {found[what]:.2f}{spread([r[what] for r in each], 2)}")
    return found


def spread(values: list[float], digits: int) -> str:
    """The least and the most of several values; nothing of one."""
    if len(values) == 1:
        return ""
    return f" ({min(values):.{digits}f} to {max(values):.{digits}f})"


def compare_beside_busy(networks: list[str], quick: bool, rounds: int) -> dict[str, float]:
    """Print images per second of each side, alone and beside a busy process; the share kept."""
    print(machine())
    found: dict[str, float] = {}
    names = ["ours", "adaptive", *(["torch"] if importlib.util.find_spec("torch") else [])]
    for name in networks:
        _, _, full_batch, quick_batch = NETWORKS[name]
        batch = quick_batch if quick else full_batch
        pace = []
        for beside in (nullcontext(), busy_process()):
            with beside:
                arguments = [name, str(batch), str(10 if quick else 20)]
                sides = {side: Side(__file__, [side, *arguments]) for side in names}
                pace.append(alternate(sides, rounds))
        for side, alone in pace[0].items():
            busy = pace[1][side]
            found[f"{name}_{side}_kept"] = kept = alone / busy
            print(
                f"{name:15} batch {batch:4} {side:11} {batch / alone:8.1f} images/s, beside a busy "
                f"process {batch / busy:8.1f}: {kept:.0%}"
            )
    return found


@contextmanager
def busy_process() -> Iterator[None]:
    """A process that computes all the time, on whichever core the system gives it."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def serve_for(step: Callable[[], object], seconds: float) -> None:
    """As `serve`, by steps for so many seconds at a time: a number of threads has to be found."""
    step()
    for _ in sys.stdin:
        begun, steps = time.perf_counter(), 0
        while time.perf_counter() - begun < seconds:
            step()
            steps += 1
        print(f"seconds {(time.perf_counter() - begun) / steps}", flush=True)


def side_names() -> list[str]:
    """Who is compared: PyTorch where it is installed, bfloat16 where the processor has it."""
    names = ["ours", "ours_bf16", "paddle"]
    if importlib.util.find_spec("torch"):
        names += ["torch", "torch_bf16"]
    return [name for name in names if has_bfloat16() or not name.endswith("bf16")]


def ratios(name: str, cost: dict[str, float]) -> dict[str, float]:
    """How many times of ours the others need: time, or memory."""
    pairs = {
        "vs_paddle": ("paddle", "ours"),
        "bf16_vs_paddle": ("paddle", "ours_bf16"),
        "vs_torch_fp32": ("torch", "ours"),
        "vs_torch_bf16": ("torch_bf16", "ours_bf16"),
    }
    return {
        f"{name}_{what}": cost[theirs] / cost[ours]
        for what, (theirs, ours) in pairs.items()
        if theirs in cost and ours in cost
    }


def make_step(side: str, name: str, batch: int) -> Callable[[], object]:
    """A training step of a network on random images."""
    options, images, labels = make_work(name, batch)
    makers = {"paddle": _paddle, "torch": _torch, "torch_bf16": _torch, "adaptive": _adaptive}
    make = makers.get(side, _ours)
    return make(side, options, images, labels)


def make_work(name: str, batch: int) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Options of the network, images ``[N, 3, H, W]``, labels ``[N]``."""
    options, pixels, *_ = NETWORKS[name]
    rng = np.random.default_rng(0)
    images = rng.normal(size=(batch, 3, pixels, pixels)).astype("float32")
    return options, images, rng.integers(0, options.get("num_classes", 1000), batch)


def make_network(options: dict[str, Any]) -> Any:
    """A network of this library."""
    from resnet_fit import networks

    rest = dict(options)
    return getattr(networks, rest.pop("name"))(**rest)


def torch_network(options: dict[str, Any]) -> Any:
    """The same network in PyTorch, in channels-last."""
    import torch
    from torch_densenet import DenseNet
    from torch_resnet import ResNet

    rest = dict(options)
    network: Any = {"resnet": ResNet, "densenet": DenseNet}[rest.pop("name")](**rest)
    return network.to(memory_format=torch.channels_last)


def _ours(side: str, options: dict[str, Any], images: np.ndarray, labels: np.ndarray) -> Callable:
    model = our_model(side, options)
    return lambda: model.train_batch([images], [labels])


def _adaptive(
    side: str, options: dict[str, Any], images: np.ndarray, labels: np.ndarray
) -> Callable:
    model = our_model(side, options)
    from resnet_fit.callbacks import AdaptThreads

    callback = AdaptThreads()
    callback.on_train_begin()
    done = 0.0

    def step() -> None:
        nonlocal done
        if time.perf_counter() - done > 1:  # other sides had their turns, which do not count
            callback.on_epoch_begin(0)
        callback.on_train_batch_begin(0)
        model.train_batch([images], [labels])
        callback.on_train_batch_end(0, {"batch_size": len(images)})
        done = time.perf_counter()

    return step


def our_model(side: str, options: dict[str, Any]) -> Any:
    """A `paddle.Model` on the backend that a run would take."""
    from resnet_fit.runtime import prepare_environment

    prepare_environment()
    import paddle

    from resnet_fit import CrossEntropy, classification_metrics
    from resnet_fit.backends import choose_backend, use_backend
    from resnet_fit.training.optimizers.momentum import Momentum

    network = make_network(options)
    backend = choose_backend("auto", "cpu")
    use_backend(network, backend, "bfloat16" if side.endswith("bf16") else "float32")
    loss = CrossEntropy()
    settings = Momentum(learning_rate=0.01, nesterov=True, weight_decay=5e-4)
    model = paddle.Model(network)
    metrics = classification_metrics(loss, options.get("num_classes", 1000))
    model.prepare(settings.build(network, 0.01), loss, metrics)
    return model


def _paddle(side: str, options: dict[str, Any], images: np.ndarray, labels: np.ndarray) -> Callable:
    import paddle

    network = make_network(options)
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


def _torch(side: str, options: dict[str, Any], images: np.ndarray, labels: np.ndarray) -> Callable:
    import torch

    network = torch_network(options)
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
        side, name, batch, *seconds = sys.argv[2:]
        step = make_step(side, name, int(batch))
        serve_for(step, float(seconds[0])) if seconds else serve(step)
    else:
        main()
