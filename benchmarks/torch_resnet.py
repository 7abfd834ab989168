"""The same networks in PyTorch, for comparison."""

from __future__ import annotations

import torch
from torch import nn

from resnet_fit.networks.families import resnet as settings


def conv_norm(i: int, o: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(i, o, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(o)
    )


class ZeroPad(nn.Module):
    """The shortcut without parameters: every second pixel, and zeros for the channels it lacks."""

    def __init__(self, stride: int, channels: int) -> None:
        super().__init__()
        self.stride, self.channels = stride, channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return nn.functional.pad(x, (0, 0, 0, 0, 0, self.channels))


class Block(nn.Module):
    def __init__(self, i: int, width: int, stride: int, kind: str, shortcut: str) -> None:
        super().__init__()
        o = width * (4 if kind == "bottleneck" else 1)
        if kind == "bottleneck":
            shapes = [(i, width, 1, 1), (width, width, 3, stride), (width, o, 1, 1)]
        else:
            shapes = [(i, width, 3, stride), (width, o, 3, 1)]
        self.branch = nn.ModuleList(conv_norm(*shape) for shape in shapes)
        if i == o and stride == 1:
            self.shortcut: nn.Module = nn.Identity()
        elif shortcut == "zero-pad":
            self.shortcut = ZeroPad(stride, o - i)
        else:
            self.shortcut = conv_norm(i, o, 1, stride)
        self.out = o

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for part in self.branch[:-1]:
            y = torch.relu_(part(y))
        return torch.relu_(self.branch[-1](y) + self.shortcut(x))


class ResNet(nn.Module):
    def __init__(
        self,
        depth: int,
        num_classes: int = 1000,
        stem: str = "imagenet",
        shortcut: str = "projection",
    ) -> None:
        super().__init__()
        kind, sizes = settings.ResNet.of(depth=depth, stem=stem).stages()
        width = 16 if stem == "cifar3" else 64
        if stem == "imagenet":
            self.stem = conv_norm(3, width, 7, 2)
            self.pool: nn.Module = nn.MaxPool2d(3, 2, 1)
        else:
            self.stem, self.pool = conv_norm(3, width, 3), nn.Identity()
        blocks: list[nn.Module] = []
        channels = width
        for stage, size in enumerate(sizes):
            for index in range(size):
                stride = 2 if stage and not index else 1
                block = Block(channels, width * 2**stage, stride, kind, shortcut)
                channels = block.out
                blocks.append(block)
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(torch.relu_(self.stem(x)))
        return self.fc(self.blocks(x).mean([2, 3]))
