"""Does this library learn what PyTorch learns? A config's ResNet in PyTorch, on the same batches.

    python benchmarks/accuracy.py CONFIG [--set KEY=VALUE] [--run FOLDER]

Data, augmentation, schedule, batches and their order are this library's; network, gradients and
optimizer are PyTorch's, in bfloat16 autocast where the config asks for it. For configs with
momentum, cross entropy and the shortcuts ``projection`` and ``zero-pad``. FOLDER is a run of the
same config by this library, to be laid beside. First weights are drawn alike but are not the same,
so accuracies differ as those of two seeds do.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from alternate import report
from torch import nn
from torch_resnet import ResNet

from resnet_fit import Config, load_config
from resnet_fit.errors import UserError
from resnet_fit.networks.families.resnet import ResNet as Settings
from resnet_fit.runtime import prepare_environment
from resnet_fit.training.losses.cross_entropy import CrossEntropy
from resnet_fit.training.optimizers.momentum import Momentum


def main() -> int:
    parser = argparse.ArgumentParser(description="A config's ResNet in PyTorch, on our batches.")
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--run", type=Path, help="the folder of a run of this library")
    options = parser.parse_args()
    prepare_environment()
    try:
        config = load_config(options.config, options.set)
        ours = {"ours": _last_accuracy(options.run)} if options.run else {}
        theirs = train(config)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    report("accuracy", epochs=len(theirs), torch=theirs[-1], **ours)
    return 0


def _last_accuracy(run: Path) -> float:
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    return summary["last"]["eval"]["top1"]


def train(config: Config) -> list[float]:
    """The test accuracy after each epoch.

    Raises:
        UserError: the config has what the network or the loop here has not.
    """
    from resnet_fit.data.make_loaders import make_loaders

    torch.manual_seed(config.training.seed)
    loaders = make_loaders(config)
    network = make_network(config, len(loaders.classes))
    optimizer = make_optimizer(network, config)
    steps, epochs = len(loaders.train), config.training.epochs
    images = config.data.batch_size * config.training.accumulate
    rate = config.schedule.rate(config.optimizer.full_rate(images), epochs, steps)
    loss_of = nn.CrossEntropyLoss(label_smoothing=config.loss.label_smoothing)
    found = []
    for epoch in range(config.training.epochs):
        started, right = time.perf_counter(), 0
        network.train()
        for images, labels in loaders.train:
            for group in optimizer.param_groups:
                group["lr"] = rate()
            logits = forward(network, images, config)
            optimizer.zero_grad(set_to_none=True)
            loss_of(logits, torch.from_numpy(labels)).backward()
            optimizer.step()
            rate.step()
            right += (logits.argmax(1).numpy() == labels).sum()
        accuracy = evaluate(network, loaders.evaluation, config)
        found.append(accuracy)
        print(
            f"epoch {epoch + 1}/{config.training.epochs}  train {right / loaders.train.count:.2%}  "
            f"test {accuracy:.2%}  {time.perf_counter() - started:.0f} s",
            flush=True,
        )
    return found


def make_network(config: Config, classes: int) -> nn.Module:
    model = config.model
    other = model.model_dump(exclude={"depth", "stem", "shortcut"}, exclude_defaults=True)
    if other:
        raise UserError(f"model: {', '.join(other)}: not in this script's network")
    if not isinstance(config.loss, CrossEntropy) or config.augmentation.mix is not None:
        raise UserError("loss.name, augmentation.mix: expected cross entropy without mixing")
    others = {
        "training.accumulate": config.training.accumulate > 1,
        "optimizer.clip_norm": config.optimizer.clip_norm is not None,
        "optimizer.lr_factors": bool(config.optimizer.lr_factors),
        "loss.class_weights": config.loss.class_weights is not None,
    }
    for key, is_set in others.items():
        if is_set:
            raise UserError(f"{key}: this script's training has none")
    if not isinstance(model, Settings) or model.shortcut == "none":
        raise UserError("model: expected a resnet of one depth with shortcuts")
    if not isinstance(model.depth, int):
        raise UserError("model.depth: expected a number")
    network = ResNet(model.depth, classes, model.stem, model.shortcut)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return network.to(memory_format=torch.channels_last)


def make_optimizer(network: nn.Module, config: Config) -> torch.optim.Optimizer:
    settings = config.optimizer
    if not isinstance(settings, Momentum):
        raise UserError(f"optimizer.name: received {settings.part_name}, expected momentum")
    everything = settings.decay_norms_and_biases
    decayed = [p for p in network.parameters() if everything or p.ndim > 1]
    others = [p for p in network.parameters() if not (everything or p.ndim > 1)]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=1.0, momentum=settings.momentum, nesterov=settings.nesterov)


def forward(network: nn.Module, images: Any, config: Config) -> torch.Tensor:
    fast = config.training.precision == "bfloat16"
    with torch.autocast("cpu", torch.bfloat16, enabled=fast):
        inputs = torch.from_numpy(images).contiguous(memory_format=torch.channels_last)
        return network(inputs).float()


def evaluate(network: nn.Module, loader: Any, config: Config) -> float:
    network.eval()
    right = 0
    with torch.no_grad():
        for images, labels in loader:
            right += (forward(network, images, config).argmax(1).numpy() == labels).sum()
    return right / loader.count


if __name__ == "__main__":
    sys.exit(main())
