"""Make the reference files of this folder with torchvision. Run once, from the repository's root:

    pip install torch==2.14.1 torchvision==0.29.1
    PYTHONPATH=tests/networks python tests/networks/references/make_torchvision.py

torchvision.json           logits of its ResNets with drawn weights, and the versions
torchvision_densenet.json  the same of its DenseNets (made with torch 2.13.0, torchvision 0.28.0)
narrow.pth                 a state dict of a ResNet of 2 to 16 channels, as torch.save writes it
narrow_legacy.pth          the same in torch's format before 1.6
narrow_densenet.pth        a state dict of a DenseNet of growth 2
tensors.pth                one tensor of each type, and views into larger storages
"""

import json
from pathlib import Path

import numpy as np
import torch
import torchvision
from drawn_weights import draw, images
from torchvision.models.densenet import DenseNet
from torchvision.models.resnet import BasicBlock, ResNet

FOLDER = Path(__file__).parent
PIXELS = 64


class NarrowResNet(ResNet):
    """torchvision's ResNet with a 32nd of its channels."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(BasicBlock, [1, 1, 1, 1], num_classes=num_classes)
        self.conv1 = torch.nn.Conv2d(3, 2, 7, stride=2, padding=3, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(2)
        self.fc = torch.nn.Linear(16, num_classes)

    def _make_layer(self, block, planes, *rest, **options):
        if planes == 64:
            self.inplanes = 2
        return super()._make_layer(block, planes // 32, *rest, **options)


def with_drawn_weights(model: torch.nn.Module) -> torch.nn.Module:
    state = {
        name: torch.from_numpy(draw(name, tuple(value.shape)))
        for name, value in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    model.load_state_dict(state, strict=False)
    return model.eval()


def logits(model: torch.nn.Module) -> list[list[float]]:
    with torch.no_grad():
        return model(torch.from_numpy(images(PIXELS))).double().numpy().tolist()


def write_logits(name: str, reference: dict[str, object]) -> None:
    reference = {
        "versions": {
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "numpy": np.__version__,
        },
        "pixels": PIXELS,
        **reference,
    }
    (FOLDER / name).write_text(json.dumps(reference, indent=1) + "\n")


def densenets() -> None:
    narrow = with_drawn_weights(DenseNet(2, (1, 1, 1, 1), num_init_features=4, num_classes=5))
    reference: dict[str, object] = {"narrow": logits(narrow)}
    for depth in (121, 161, 169, 201):
        model = getattr(torchvision.models, f"densenet{depth}")(num_classes=10)
        reference[str(depth)] = logits(with_drawn_weights(model))
    write_logits("torchvision_densenet.json", reference)
    torch.save(narrow.state_dict(), FOLDER / "narrow_densenet.pth")


def resnets() -> None:
    narrow = with_drawn_weights(NarrowResNet(num_classes=5))
    reference: dict[str, object] = {"narrow": logits(narrow)}
    for depth in (18, 34, 50, 101, 152):
        model = getattr(torchvision.models, f"resnet{depth}")(num_classes=10)
        reference[str(depth)] = logits(with_drawn_weights(model))
    write_logits("torchvision.json", reference)

    state = narrow.state_dict()
    torch.save(state, FOLDER / "narrow.pth")
    torch.save(state, FOLDER / "narrow_legacy.pth", _use_new_zipfile_serialization=False)

    grid = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    tensors = {
        str(dtype).removeprefix("torch."): torch.tensor([0, 1, 3]).to(dtype)
        for dtype in (
            torch.float64, torch.float32, torch.float16, torch.bfloat16,
            torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
        )
    }  # fmt: skip
    tensors |= {
        "grid": grid,
        "transposed": grid.T,
        "window": grid[1:, 1:3],
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.tensor([1.5, -2.0])),
    }
    torch.save(tensors, FOLDER / "tensors.pth")


if __name__ == "__main__":
    resnets()
    densenets()
