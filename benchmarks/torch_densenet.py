"""The same dense networks in PyTorch, for comparison."""

from __future__ import annotations

import torch
from torch import nn

from resnet_fit.networks.families import densenet as settings


class NormConv(nn.Module):
    def __init__(self, i: int, o: int, kernel: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(i)
        self.conv = nn.Conv2d(i, o, kernel, 1, kernel // 2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(torch.relu_(self.norm(x)))


class Layer(nn.Module):
    def __init__(self, i: int, growth: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(NormConv(i, 4 * growth, 1), NormConv(4 * growth, growth, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.branch(x)], 1)


class DenseNet(nn.Module):
    def __init__(self, depth: int, num_classes: int = 1000, stem: str = "imagenet") -> None:
        super().__init__()
        growth, sizes = settings.DenseNet.of(depth=depth, stem=stem).blocks()
        channels = 2 * growth
        if stem == "imagenet":
            parts: list[nn.Module] = [
                nn.Conv2d(3, channels, 7, 2, 3, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(3, 2, 1),
            ]
        else:
            parts = [nn.Conv2d(3, channels, 3, 1, 1, bias=False)]
        for block, size in enumerate(sizes):
            if block:
                parts += [NormConv(channels, channels // 2, 1), nn.AvgPool2d(2)]
                channels //= 2
            for _ in range(size):
                parts.append(Layer(channels, growth))
                channels += growth
        self.features = nn.Sequential(*parts, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).mean([2, 3]))
