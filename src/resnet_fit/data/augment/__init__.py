"""Augmentation of whole batches held in memory, as array code.

Images are ``[N, C, H, W]`` arrays, uint8 or float32, in grey levels 0..255 until `Normalize`.
Spatial operations keep the type they are given. Colour operations return float32 and do not round,
so that a chain of them loses nothing between its links; they agree with the per-image reference
(Pillow's ``ImageEnhance``, the ``ColorJitter`` of paddle.vision and torchvision) up to that
rounding. Policies work on whole grey levels and return uint8.

An operation says how many uniform random numbers an image costs (`Operation.draws`) and turns them
into its choices in `Operation.apply`, a pure function. What happens to an image therefore depends
on its own row of numbers alone, neither on its neighbours nor on how a batch is cut up for the
cache.
"""

from resnet_fit.data.augment.colour import (
    ColorJitter,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
)
from resnet_fit.data.augment.erasing import Cutout, RandomErasing
from resnet_fit.data.augment.geometry import (
    KERNELS,
    HorizontalFlip,
    RandomCrop,
    Resize,
    VerticalFlip,
    crop,
    pad,
)
from resnet_fit.data.augment.normalize import Normalize
from resnet_fit.data.augment.operation import Operation
from resnet_fit.data.augment.pipeline import Unfinished, check_order, compose
from resnet_fit.data.augment.policies import RandAugment, TrivialAugment

__all__ = [
    "KERNELS",
    "ColorJitter",
    "Cutout",
    "HorizontalFlip",
    "Normalize",
    "Operation",
    "RandAugment",
    "RandomCrop",
    "RandomErasing",
    "Resize",
    "TrivialAugment",
    "Unfinished",
    "VerticalFlip",
    "adjust_brightness",
    "adjust_contrast",
    "adjust_hue",
    "adjust_saturation",
    "check_order",
    "compose",
    "crop",
    "pad",
]
