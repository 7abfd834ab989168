"""Augmentation of whole batches held in memory, as array code.

Images are ``[N, C, H, W]`` arrays, uint8 or float32, in pixel values 0..255 until `Normalize`.
Spatial operations keep the dtype. Colour operations return float32 and do not round, so that a
chain of them loses no precision; they agree with the per-image reference (Pillow's
``ImageEnhance``, the ``ColorJitter`` of paddle.vision and torchvision) up to that rounding.
Policies work on whole pixel values and return uint8.

An operation declares how many uniform random numbers it needs for each image (`Operation.draws`).
`Operation.apply` is a pure function of images and these numbers. So the result for an image depends
only on its own row of numbers, not on the rest of the batch or on how the batch is split to fit the
CPU cache.
"""

from resnet_fit.data.augment.colour import ColorJitter
from resnet_fit.data.augment.erasing import Cutout, RandomErasing
from resnet_fit.data.augment.geometry import HorizontalFlip, RandomCrop, Resize, VerticalFlip
from resnet_fit.data.augment.normalize import Normalize
from resnet_fit.data.augment.operation import Operation
from resnet_fit.data.augment.pipeline import Unfinished, check_order, compose, first_normalize
from resnet_fit.data.augment.policies import RandAugment, TrivialAugment

__all__ = [
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
    "check_order",
    "compose",
    "first_normalize",
]
