"""Evaluation of whole networks on this CPU: this library, Paddle as installed, PyTorch.

    python benchmarks/evaluate.py [--quick] [--processes 5] [--networks resnet20 resnet50]

Images per second forward, with loss and accuracy. ``ours`` and ``ours_bf16`` are `eval_batch` of a
`paddle.Model`; ``paddle`` is the same network by Paddle's own operations and default settings;
``torch`` and ``torch_bf16`` (where PyTorch is installed) are in channels-last. Those in bfloat16
are left out on a processor that has none. ``--processes``: as for `backends.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import numpy as np
from alternate import WORKER, report, serve
from backends import NETWORKS, compare, make_network, make_work, our_model, torch_network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller batches, 3 rounds")
    parser.add_argument("--processes", type=int, default=1, help="of each side, one after another")
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=NETWORKS)
    options = parser.parse_args()
    rounds = 3 if options.quick else 11
    found = compare(__file__, options.networks, options.quick, rounds, options.processes)
    report("evaluate", **found)


def make_evaluation(side: str, name: str, batch: int) -> Callable[[], object]:
    """One batch judged."""
    options, images, labels = make_work(name, batch)
    if side.startswith("ours"):
        model = our_model(side, options)
        return lambda: model.eval_batch([images], [labels])
    return (_torch if side.startswith("torch") else _paddle)(side, options, images, labels)


def _paddle(side: str, options: dict, images: np.ndarray, labels: np.ndarray) -> Callable:
    import paddle

    network = make_network(options)
    network.eval()
    x, y = paddle.to_tensor(images), paddle.to_tensor(labels)

    def work() -> None:
        with paddle.no_grad():
            logits = network(x)
            float(paddle.nn.functional.cross_entropy(logits, y))
            float((logits.argmax(1) == y).astype("float32").mean())

    return work


def _torch(side: str, options: dict, images: np.ndarray, labels: np.ndarray) -> Callable:
    import torch

    network = torch_network(options).eval()
    x = torch.from_numpy(images).to(memory_format=torch.channels_last)
    y = torch.from_numpy(labels)

    def work() -> None:
        with (
            torch.inference_mode(),
            torch.autocast("cpu", torch.bfloat16, enabled=side.endswith("bf16")),
        ):
            logits = network(x).float()
            torch.nn.functional.cross_entropy(logits, y).item()
            (logits.argmax(1) == y).float().mean().item()

    return work


if __name__ == "__main__":
    if sys.argv[1:2] == [WORKER]:
        serve(make_evaluation(sys.argv[2], sys.argv[3], int(sys.argv[4])))
    else:
        main()
