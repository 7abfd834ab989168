"""Training steps on a GPU: what `auto` takes, each of its settings turned, and PyTorch.

    python benchmarks/gpu.py [--json FILE]
    python benchmarks/gpu.py --device cpu --quick

ResNet-18 on 32 px and ResNet-50 on 224 px, in each precision: ``auto``; one setting turned against
it at a time; PyTorch in channels-last under autocast, with and without ``torch.compile``, where it
is installed. Sides are processes that take turns, as many at a time as fit into the card's memory;
the ratio to ``auto`` is of the same turns. ``data`` marks sides that get their batches from the
run's loader (crop, mirror image, normalise); all others train on one batch that stays on the card.

The share of the peak is what a step computes (six operations for each multiply-accumulate of the
network) in relation to multiplications of large matrices in the same precision. A side that cannot
work is left out with the reason. The end says whether what `auto` takes was the fastest.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from alternate import Side, alternate, machine

from resnet_fit import gpu
from resnet_fit.files import write_json

SCRIPT = str(Path(__file__).with_name("gpu_sides.py"))
PRECISIONS = ("float32", "float16", "bfloat16")
RESNET18 = {"depth": 18, "stem": "cifar", "num_classes": 10}
RESNET50 = {"depth": 50, "num_classes": 1000}
NETWORKS: dict[str, dict[str, Any]] = {
    "resnet18": {"model": RESNET18, "pixels": 32, "stored": 32, "batch": 512, "steps": 20},
    "resnet50": {"model": RESNET50, "pixels": 224, "stored": 256, "batch": 128, "steps": 8},
}
QUICK: dict[str, dict[str, Any]] = {
    "resnet18": {"model": RESNET18, "pixels": 16, "stored": 16, "batch": 4, "steps": 1},
    "resnet50": {"model": RESNET50, "pixels": 64, "stored": 72, "batch": 2, "steps": 1},
}
MATRIX, QUICK_MATRIX = 8192, 256
# One GPU (A100 80 GB), 224 px: NVIDIA DeepLearningExamples, PaddlePaddle/Classification/RN50v1.5.
ANCHOR = {"TF32": 993, "mixed precision": 2711}
# Memory of a process on the card beside its tensors, and the share of the card that is used.
CONTEXT, USED = 0.7e9, 0.8
# By less than this two sides do not differ.
NOISE = 0.02
AUTO, AUTO_DATA, PEAK = "auto", "auto, data", "peak"


@dataclass
class Row:
    """One side of one network in one precision."""

    network: str
    precision: str
    side: str
    images_per_second: float | None = None
    of_auto: float | None = None
    memory: int | None = None
    of_peak: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        start = f"{self.network:9} {self.precision:9} {self.side:34}"
        if self.images_per_second is None:
            return f"{start} left out: {self.facts.get('error', 'the process died')}"
        columns = [
            f"{self.images_per_second:9,.0f} images/s",
            f"{self.of_auto:5.2f} of auto" if self.of_auto is not None else " " * 13,
            f"{self.memory / 1e9:5.1f} GB" if self.memory is not None else " " * 8,
            f"{self.of_peak:5.1%} of peak" if self.of_peak is not None else "",
        ]
        return " ".join([start, *columns]).rstrip()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="gpu", help="gpu, gpu:N or cpu")
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--precisions", nargs="*", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--batch-size", type=int, help="512 and 128 by default")
    parser.add_argument("--rounds", type=int, help="turns of each side; 5 by default")
    parser.add_argument("--quick", action="store_true", help="tiny sizes and 2 rounds")
    parser.add_argument("--json", type=Path, help="keep all figures in this file")
    options = parser.parse_args(arguments)
    rounds = options.rounds or (2 if options.quick else 5)
    print(f"{machine()}; {options.device}")
    rows: list[Row] = []
    for network in options.networks:
        base = dict((QUICK if options.quick else NETWORKS)[network])
        base |= {"device": options.device, "matrix": QUICK_MATRIX if options.quick else MATRIX}
        base |= {"batch": options.batch_size} if options.batch_size else {}
        for precision in options.precisions:
            for row in compare(network, base | {"precision": precision}, rounds):
                if "paddle" in row.facts and not any("paddle" in o.facts for o in rows):
                    print(*versions(row.facts), sep=", ")
                print(row, flush=True)
                rows.append(row)
        if network == "resnet50":
            told = ", ".join(f"{v:,} in {k}" for k, v in ANCHOR.items())
            print(f"beside it: NVIDIA's ResNet-50 in Paddle on an A100 80 GB, images/s: {told}")
    lines = list(verdict(rows))
    print("\n".join(lines))
    if options.json is not None:
        found = {
            "machine": machine(),
            "device": options.device,
            "versions": next((list(versions(r.facts)) for r in rows if "paddle" in r.facts), []),
            "rounds": rounds,
            "rows": [asdict(row) for row in rows],
            "verdict": lines,
            "anchor": ANCHOR,
        }
        write_json(options.json, found)


def sides_of(job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The job of each side beside ``auto``, by name."""
    half, on_cpu = job["precision"] != "float32", job["device"] == "cpu"
    ours = {**job, "who": "ours", "data": False, "set": []}
    auto_layout = "channels_last" if half else "paddle"
    layouts = ("paddle", "channels_last") if on_cpu else {"paddle", "channels_last"} - {auto_layout}
    turned = [f"training.backend={layout}" for layout in sorted(layouts)]
    turned += ["training.compile=static", "training.compile=cinn"]
    turned += [f"optimizer.fused={'true' if on_cpu else 'false'}"]
    sides = {setting: {**ours, "set": [setting]} for setting in turned}
    search = {"FLAGS_cudnn_exhaustive_search": "1"}
    if not on_cpu:
        sides["FLAGS_cudnn_exhaustive_search=1"] = {**ours, "environment": search}
    on_device = f"augmentation.on_device={'false' if half and not on_cpu else 'true'}"
    sides[AUTO_DATA] = {**ours, "data": True}
    sides[f"{on_device}, data"] = {**ours, "data": True, "set": [on_device]}
    if importlib.util.find_spec("torch"):
        for name, compiled in {"PyTorch": False, "PyTorch, torch.compile": True}.items():
            sides[name] = {**job, "who": "torch", "compile": compiled}
    sides[PEAK] = {**job, "who": "peak"}
    return sides


def compare(network: str, job: dict[str, Any], rounds: int) -> Iterator[Row]:
    """All sides of one network in one precision, ``auto`` first."""
    auto = {**job, "who": "ours", "data": False, "set": []}
    _, told = take_turns({AUTO: auto}, rounds=1)  # does it work, and what does it need
    facts = told[AUTO]
    if "error" in facts or not facts:
        yield Row(network, job["precision"], AUTO, facts=facts)
        return
    sides = sides_of(job)
    names = list(sides)
    seconds: dict[str, float] = {}
    ratios: dict[str, float] = {}
    for group in groups(names, at_once(facts)):
        alone = AUTO_DATA in group and len(group) == 2
        jobs = ({} if alone else {AUTO: auto}) | {name: sides[name] for name in group}
        times, found = take_turns(jobs, rounds)
        told |= found
        seconds = times | seconds
        for name in group:
            reference = AUTO_DATA if name.endswith(", data") else AUTO
            if name in times and reference in times and name != PEAK:
                ratios[name] = times[reference] / times[name]
    images = job["batch"] * job["steps"]
    operations = 6 * facts["macs"] * images
    peak = 2 * job["matrix"] ** 3 * job["steps"] / seconds[PEAK] if PEAK in seconds else None
    for name in [AUTO, *(n for n in names if n != PEAK)]:
        if name not in seconds:
            yield Row(network, job["precision"], name, facts=told[name])
            continue
        share = operations / seconds[name] / peak if peak else None
        yield Row(
            network,
            job["precision"],
            name,
            images / seconds[name],
            1.0 if name == AUTO else ratios.get(name),
            told[name].get("memory"),
            share,
            told[name] | ({"peak": peak} if name == AUTO else {}),
        )


def at_once(facts: dict[str, Any]) -> int:
    """How many sides fit into the card's memory beside ``auto``."""
    if "total_memory" not in facts:
        return 100
    return max(1, int(USED * facts["total_memory"] / (facts["reserved"] + CONTEXT)) - 1)


def groups(names: list[str], most: int) -> list[list[str]]:
    """At most so many sides at a time beside ``auto``; the two with data are a group of their own
    where not all sides fit.
    """
    data = [name for name in names if name.endswith(", data")]
    rest = [name for name in names if name not in data]
    if most >= len(names):
        return [names]
    return [*(rest[i : i + most] for i in range(0, len(rest), most)), data]


def take_turns(
    jobs: Mapping[str, dict[str, Any]], rounds: int
) -> tuple[dict[str, float], dict[str, dict[str, Any]]]:
    """Median seconds of each job that can work, and what each told of itself, or why it cannot."""
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder, f"{i}.json") for i, name in enumerate(jobs)}
        sides = {
            name: Side(SCRIPT, [json.dumps(job), str(files[name])], job.get("environment", {}))
            for name, job in jobs.items()
        }
        seconds = alternate(sides, rounds, without_failed=True)
        facts = {
            name: json.loads(file.read_text()) if file.exists() else {}
            for name, file in files.items()
        }
    return seconds, facts


def verdict(rows: Sequence[Row]) -> Iterator[str]:
    """Whether what ``auto`` takes was the fastest, by network and precision."""
    measured = [row for row in rows if row.of_auto is not None and "PyTorch" not in row.side]
    faster = [row for row in measured if row.of_auto is not None and row.of_auto > 1 + NOISE]
    for row in faster:
        yield (
            f"{row.network} in {row.precision}: {row.side} is {row.of_auto:.2f} times as fast as "
            "what auto takes"
        )
    if all(row.side in (AUTO, AUTO_DATA) for row in measured):
        yield "Nothing was compared with auto."
    elif not faster:
        yield "The settings that auto takes are the fastest of those measured."


def versions(facts: dict[str, Any]) -> Iterator[str]:
    """The card, its driver, and what computes, from the facts of a side of this library."""
    if "card" in facts:
        yield f"{facts['card']}, compute capability {facts['capability']}, driver {gpu.driver()}"
        yield f"CUDA {facts['cuda']}, cuDNN {facts['cudnn']}"
    if "paddle" in facts:
        yield f"Paddle {facts['paddle']}, NumPy {facts['numpy']}"


if __name__ == "__main__":
    main()
