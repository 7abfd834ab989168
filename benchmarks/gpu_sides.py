"""The processes of `gpu.py`: one side each, which repeats some training steps on request.

    python benchmarks/gpu_sides.py --worker JOB FACTS

JOB is a JSON object; what a side finds out about itself, or why it cannot work, goes to the file
FACTS. A GPU is waited for at the end of each piece of work, since its work is only queued before.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from alternate import serve

# A piece of work, and what there is to tell of it afterwards.
Work = tuple[Callable[[], object], Callable[[], dict[str, Any]]]


def main(job: dict[str, Any], file: Path) -> None:
    """Serve one side."""
    try:
        work, facts = MAKERS[job["who"]](job)
        calls = count()

        def noted() -> None:
            work()
            if next(calls) == 0:  # the warm-up, which is not timed
                file.write_text(json.dumps(facts()), encoding="utf-8")

        serve(noted)
    except Exception as error:  # of any side, so that the others go on
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        told = lines[-1] if lines else type(error).__name__
        file.write_text(json.dumps({"error": told[:300]}), encoding="utf-8")
        raise SystemExit(1) from error


def repeated(step: Callable[[], object], wait: Callable[[], object], steps: int) -> Callable:
    def work() -> None:
        for _ in range(steps):
            step()
        wait()

    return work


# --- this library -------------------------------------------------------------------------


def config_of(job: dict[str, Any]) -> dict[str, Any]:
    """A run of the library on images in memory, which it crops, mirrors and normalises."""
    pixels, model = job["pixels"], {"name": "resnet", **job["model"]}
    colours = {"normalize": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}}
    crop = {"padding": 4} if pixels == job["stored"] else {"padding": 0, "size": pixels}
    resize = [] if pixels == job["stored"] else [{"resize": {"size": pixels}}]
    return {
        "model": {key: value for key, value in model.items() if key != "num_classes"},
        "data": {"name": "given", "batch_size": job["batch"]},
        "augmentation": {
            "train": [{"random_crop": crop}, "horizontal_flip", colours],
            "eval": [*resize, colours],
        },
        "optimizer": {
            "name": "momentum",
            "learning_rate": 0.01,
            "nesterov": True,
            "weight_decay": 5e-4,
        },
        "schedule": {"name": "constant"},
        "training": {"epochs": 1, "device": job["device"], "precision": job["precision"]},
        "callbacks": {"visualdl": None},
    }


def ours(job: dict[str, Any]) -> Work:
    """Steps as `paddle.Model.fit` makes them in a run; of one batch, or with the run's loader."""
    from resnet_fit.runtime import prepare_environment

    prepare_environment()
    import paddle

    from resnet_fit import parse_config
    from resnet_fit.data.dataset import ArrayDataset
    from resnet_fit.data.datasets.data import Parts
    from resnet_fit.reports.steps import endless
    from resnet_fit.runs.experiment import set_up

    classes = job["model"]["num_classes"]
    shape = (4 * job["batch"], 3, job["stored"], job["stored"])
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, shape, np.uint8)
    labels = rng.integers(0, classes, len(images))
    data = ArrayDataset(images, labels, tuple(str(i) for i in range(classes)))
    few = ArrayDataset(images[:2], labels[:2], data.classes)
    config = parse_config(config_of(job), job["set"])
    experiment = set_up(config, parts=Parts(data, few, None))
    model, batches = experiment.model, endless(experiment)
    on_gpu = experiment.device != "cpu"
    first = [paddle.to_tensor(array) for array in next(batches)]

    def step() -> None:
        x, y = next(batches) if job["data"] else first
        model.train_batch([x], [y])

    def facts() -> dict[str, Any]:
        found = {
            "execution": str(experiment.execution),
            "macs": experiment.counts["macs"],
            "paddle": paddle.__version__,
            "numpy": np.__version__,
        }
        return found | (card() if on_gpu else {})

    def wait() -> None:
        if on_gpu:
            paddle.device.synchronize()

    return repeated(step, wait, job["steps"]), facts


def card() -> dict[str, Any]:
    """The GPU that Paddle computes on, and the memory that was taken of it."""
    import paddle

    cuda, properties = paddle.device.cuda, paddle.device.cuda.get_device_properties()
    return {
        "card": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "total_memory": properties.total_memory,
        "cuda": paddle.version.cuda(),
        "cudnn": paddle.version.cudnn(),
        "memory": cuda.max_memory_allocated(),
        "reserved": cuda.max_memory_reserved(),
    }


def peak(job: dict[str, Any]) -> Work:
    """Multiplications of large square matrices: what the device can do at most."""
    from resnet_fit.runtime import prepare_environment

    prepare_environment()
    import paddle

    paddle.set_device(job["device"])
    side = job["matrix"]
    matrix = paddle.randn([side, side]).astype(job["precision"])
    wait = paddle.device.synchronize if job["device"] != "cpu" else lambda: None
    return repeated(lambda: paddle.matmul(matrix, matrix), wait, job["steps"]), dict


# --- PyTorch ------------------------------------------------------------------------------


def torch(job: dict[str, Any]) -> Work:
    """The same network in channels-last under autocast, with or without ``torch.compile``."""
    import torch
    from torch_resnet import ResNet

    device = torch.device("cpu" if job["device"] == "cpu" else "cuda")
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")  # TF32, which Paddle takes as well
    network = ResNet(**job["model"]).to(device, memory_format=torch.channels_last)
    compute = torch.compile(network) if job["compile"] else network
    optimizer = torch.optim.SGD(
        network.parameters(), 0.01, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    half = job["precision"] != "float32"
    scaler = torch.amp.GradScaler(device.type, enabled=job["precision"] == "float16")
    x = torch.randn(job["batch"], 3, job["pixels"], job["pixels"], device=device)
    x = x.to(memory_format=torch.channels_last)
    y = torch.randint(job["model"]["num_classes"], (job["batch"],), device=device)

    def step() -> None:
        with torch.autocast(device.type, getattr(torch, job["precision"]), enabled=half):
            logits = compute(x)
        loss = torch.nn.functional.cross_entropy(logits.float(), y)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        loss.item()

    def facts() -> dict[str, Any]:
        found = {"torch": torch.__version__}
        if device.type == "cuda":
            found |= {
                "memory": torch.cuda.max_memory_allocated(),
                "reserved": torch.cuda.max_memory_reserved(),
            }
        return found

    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    return repeated(step, wait, job["steps"]), facts


MAKERS: dict[str, Callable[[dict[str, Any]], Work]] = {"ours": ours, "peak": peak, "torch": torch}

if __name__ == "__main__":
    main(json.loads(sys.argv[2]), Path(sys.argv[3]))
