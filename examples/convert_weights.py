"""Weights of torchvision (.pth) or paddle.vision (.pdparams) made into a file for `paddle.Model`.

    python examples/convert_weights.py resnet50.pth resnet50.pdparams

The network is read off the file: kind and number of blocks, width, stem, classes. What is written
loads into it by ``paddle.Model(network).load("resnet50")``, which is done once at the end, and the
report says what came in and went out. torch is not needed, and nothing in the file is executed. A
config takes the original as it is (``model.weights: resnet50.pth``).
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import paddle

from resnet_fit.errors import UserError
from resnet_fit.files import write
from resnet_fit.networks import ResNet, count_parameters, load_weights, read_weights, resnet


def network_of(tensors: Mapping[str, np.ndarray], file: Path) -> ResNet:
    """Build the network that ``tensors`` belong to, with random weights."""
    try:
        width, in_channels, kernel, _ = tensors["conv1.weight"].shape
        num_classes = len(tensors["fc.bias"])
        blocks = {tuple(name.split(".")[:2]) for name in tensors if name.startswith("layer")}
        stages = sorted({stage for stage, _ in blocks})
        sizes = [sum(block[0] == stage for block in blocks) for stage in stages]
    except (KeyError, ValueError) as error:
        raise UserError(f"{file}: not the weights of a ResNet ({error})") from None
    return resnet(
        sizes,
        num_classes,
        stem="imagenet" if kernel == 7 else "cifar",
        width=width,
        in_channels=in_channels,
        block="bottleneck" if "layer1.0.conv3.weight" in tensors else "basic",
    )


def convert(source: Path, target: Path) -> None:
    """Write ``source`` as ``target``, open it again and print a report.

    Raises:
        UserError: ``source`` is no such file or no ResNet, or ``target`` a name that
            `paddle.Model.load` could not open.
    """
    if target.suffix != ".pdparams" or "." in target.stem:
        raise UserError(f"{target}: expected NAME.pdparams with no other dot, as paddle.Model asks")
    tensors = read_weights(source)
    network = network_of(tensors, source)
    report = load_weights(network, source)
    write(target, lambda part: paddle.save(network.state_dict(), str(part)))

    again = network_of(tensors, source)
    paddle.Model(again).load(str(target.with_suffix("")))
    images = paddle.randn([2, again.conv1.weight.shape[1], 96, 96])
    network.eval()
    again.eval()
    difference = float((network(images) - again(images)).abs().max())

    sizes = [len(getattr(again, f"layer{i + 1}")) for i in range(again.num_stages)]
    print(f"read     {source}: {report.tensors} tensors")
    print(
        f"network  {type(again.layer1[0]).__name__} x {sizes}, stem {again.stem}, "
        f"{len(again.fc.bias)} classes, {count_parameters(again):,} parameters"
    )
    print(f"wrote    {target}: {target.stat().st_size:,} bytes")
    print(f"check    opened by paddle.Model.load; outputs differ by {difference:g} at most")


def main() -> int:
    parser = argparse.ArgumentParser(description="Convert ResNet weights for paddle.Model.load.")
    parser.add_argument("source", type=Path, help="a .pth of torchvision or a .pdparams")
    parser.add_argument("target", type=Path, help="the .pdparams to write")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # Paddle's own, about compilers
    try:
        convert(options.source, options.target)
    except UserError as error:
        print(f"convert_weights: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
