"""What several processes cost beside one: the sums before a step, and a whole training step.

    python benchmarks/processes.py [--quick] [--processes 2]

``sum`` is the time in which gradients and running statistics of a network are added up over the
processes of this machine, with the bytes that go to each. ``step`` is a step of ResNet-20 on two
batches of 64: dealt to two processes with half of the cores each, or accumulated by one process
with all cores. The last table is calculated, not measured: see `scaling`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from alternate import machine, report

NETWORKS = {
    "resnet20": ((20, 10, "cifar3"), 64, 32),
    "resnet18": ((18, 1000, "imagenet"), 8, 64),
    "resnet50": ((50, 1000, "imagenet"), 4, 64),
}
RESULT = "RESNET_FIT_BENCHMARK_RESULT"
# For the calculation. NVIDIA's figures for Paddle's ResNet-50 on one A100 80GB, images a second.
IMAGES_PER_SECOND = {"TF32": 993.0, "mixed precision": 2711.0}
BATCH = 256  # images of a GPU and step, as in NVIDIA's example
NVLINK, NETWORK = 300e9, 25e9  # bytes a second that a GPU's ring gets in and between machines
GPUS_OF_A_MACHINE = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="5 steps, 2 rounds")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--worker", action="store_true")
    options = parser.parse_args()
    if options.worker:
        work(5 if options.quick else 20)
        return
    print(machine())
    rounds = 2 if options.quick else 7
    found: dict[int, list[dict[str, float]]] = {1: [], options.processes: []}
    for _ in range(rounds):
        for processes, results in found.items():
            results.append(measure(processes, options.quick))
    several, one = (
        {key: statistics.median(r[key] for r in found[n]) for key in found[n][0]}
        for n in (options.processes, 1)
    )
    for name in NETWORKS:
        megabytes = several[f"{name} bytes"] / 1e6
        milliseconds = 1e3 * several[f"{name} sum"]
        print(f"{name} sum  {megabytes:7.1f} MB {milliseconds:8.2f} ms")
    speedup = one["step"] / several["step"]
    print(
        f"resnet20 step  1 process {1e3 * one['step']:.1f} ms, {options.processes} processes "
        f"{1e3 * several['step']:.1f} ms: {speedup:.2f} times as fast"
    )
    for line in scaling(several["resnet50 bytes"]):
        print(line)
    report("processes", step_speedup=speedup, resnet50_sum_seconds=several["resnet50 sum"])


def measure(processes: int, quick: bool) -> dict[str, float]:
    """Start so many processes of this file, and return what the first one measured."""
    from resnet_fit.runs.launch import launch

    words = [sys.executable, __file__, "--worker", *(["--quick"] if quick else [])]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.json"
        os.environ[RESULT] = str(file)
        if processes == 1:
            subprocess.run(words, check=True)
        else:
            launch(words, processes)
        return json.loads(file.read_text())


def work(steps: int) -> None:
    """One of the processes: times the sums of each network, and steps of the smallest."""
    from resnet_fit import parallel
    from resnet_fit.runtime import prepare_environment

    prepare_environment()
    import paddle

    parallel.start("cpu")
    result: dict[str, float] = {}
    for name, (arguments, batch, size) in NETWORKS.items():
        images = paddle.rand([batch, 3, size, size])
        seconds, sums, numbers = timed_steps(arguments, images, steps)
        result |= {f"{name} sum": sums, f"{name} bytes": 4.0 * numbers}
        if name == "resnet20":
            result["step"] = seconds
    if parallel.is_first():
        Path(os.environ[RESULT]).write_text(json.dumps(result))


def timed_steps(arguments: tuple, images, steps: int) -> tuple[float, float, int]:
    """Median seconds of a step of two batches, those of its sums, and the numbers added up."""
    import paddle

    from resnet_fit import CrossEntropy, parallel, resnet
    from resnet_fit.backends import choose_backend, use_backend
    from resnet_fit.data.dealing import Dealer
    from resnet_fit.training import reduction
    from resnet_fit.training.accumulation import accumulated

    network = resnet(*arguments)
    use_backend(network, choose_backend("auto", "cpu"))
    optimizer = paddle.optimizer.Momentum(0.001, parameters=network.parameters())
    dealer = Dealer(parallel.rank(), parallel.size())
    batch = images.shape[0]
    turns = dealer.turns(2, 0, 2, batch, 2 * batch)
    if parallel.size() == 1:
        loss = accumulated(CrossEntropy(), optimizer, 2, batch)
    else:
        loss = reduction.Reduction(network, optimizer, dealer, 2, batch).of(CrossEntropy())
    spent = 0.0
    sums = reduction.add_up_gradients

    def timed(optimizer) -> None:
        nonlocal spent
        parallel.total([0.0])  # whoever comes late is not the sum's fault
        begun = time.perf_counter()
        sums(optimizer)
        spent = time.perf_counter() - begun

    reduction.add_up_gradients = timed
    labels = paddle.zeros([batch, 1], "int64")
    whole, added = [], []
    for _ in range(steps + 3):
        begun = time.perf_counter()
        for dealer.turn in turns:
            value = loss(network(images), labels)
            value.backward()
        optimizer.minimize(value)
        optimizer.clear_grad()
        whole.append(time.perf_counter() - begun)
        added.append(spent)
    reduction.add_up_gradients = sums
    numbers = int(np.sum([p.size for p in network.parameters()]))
    return statistics.median(whole[3:]), statistics.median(added[3:]), numbers


def scaling(gradient_bytes: float) -> list[str]:
    """How much faster 8 and 64 GPUs would be than one, if nothing but the sums cost anything.

    Assumed: `IMAGES_PER_SECOND` on one GPU, `BATCH` images a step on each; a ring sends every
    gradient 2 (N - 1) / N times through the slowest link, at `NVLINK` within a machine of 8 GPUs
    and `NETWORK` between machines; sums begin when all gradients are there, as in this library;
    nothing is waited for but them.
    """
    lines = ["calculated for ResNet-50 on A100s; NVIDIA measured 7.47 (mixed) and 8.01 (TF32) on 8"]
    for precision, speed in IMAGES_PER_SECOND.items():
        step = BATCH / speed
        for gpus in (8, 64):
            link = NVLINK if gpus <= GPUS_OF_A_MACHINE else NETWORK
            added = 2 * (gpus - 1) / gpus * gradient_bytes / link
            faster = gpus * step / (step + added)
            lines.append(
                f"{precision:16} {gpus:3} GPUs: step {1e3 * step:6.1f} ms, sums "
                f"{1e3 * added:5.2f} ms: {faster:5.2f} times as fast"
            )
    return lines


if __name__ == "__main__":
    main()
