"""Images of a batch mixed in pairs, and their labels with them: mixup and CutMix."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from resnet_fit.errors import UserError


@dataclass(frozen=True)
class Mix:
    """Mix each image of a batch with another one of the batch.

    A share ``l`` of Beta(alpha, alpha) is drawn for the whole batch. Mixup (Zhang et al. 2017)
    blends ``l`` of the image with ``1 - l`` of its partner; CutMix (Yun et al. 2019) sets into the
    image a rectangle of its partner's of the share ``1 - l`` of the area, cut at the edges and then
    measured again. Labels become probabilities, blended by the same share.

    Args:
        mixup: alpha of mixup; 0 leaves it out.
        cutmix: alpha of CutMix; 0 leaves it out. With both, each batch has one or the other.
        share: of the batches, how many are mixed at all.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    share: float = 1.0

    def __post_init__(self) -> None:
        for name in ("mixup", "cutmix"):
            if not 0 <= getattr(self, name) < np.inf:
                raise UserError(f"{name}: received {getattr(self, name)!r}, expected 0 or more")
        if not 0 <= self.share <= 1:
            raise UserError(f"share: received {self.share!r}, expected 0 to 1")

    def __call__(
        self,
        images: Any,
        labels: np.ndarray,
        classes: int,
        rng: np.random.Generator,
        partners: np.ndarray,
        by: Any = None,
    ) -> tuple[Any, np.ndarray]:
        """Images ``[N, C, H, W]`` and labels ``[N]`` as images and float32 ``[N, classes]``.

        ``partners`` int64 ``[N]`` is the place of the image that each one is mixed with. ``by`` is
        what has ``mixup`` and ``cutmix`` for images of their kind; arrays by default.
        """
        by = by or sys.modules[__name__]
        targets = np.eye(classes, dtype=np.float32)[labels]
        # All are drawn in any case: what one of them says must not move the others.
        mixes, which, y, x = rng.random(4)
        alphas = [alpha for alpha in (self.mixup, self.cutmix) if alpha > 0]
        if not alphas or mixes >= self.share:
            return images, targets
        cuts = self.cutmix > 0 and (self.mixup == 0 or which < 0.5)
        alpha = self.cutmix if cuts else self.mixup
        share = float(rng.beta(alpha, alpha))
        if cuts:
            images, share = by.cutmix(images, partners, share, (y, x))
        else:
            images = by.mixup(images, partners, share)
        return images, mixup(targets, partners, share)


def different_partners(indices: np.ndarray) -> np.ndarray:
    """For each image of a batch, the place of another image of the batch that is not a copy of it.

    ``indices`` ``[N]`` say which image of the data set each one is. All partners lie at the same
    distance before their images, around the end of the batch: the smallest distance at which no
    copies meet, which is 1 if all images differ. Where copies meet at every distance, because one
    image fills half of the batch, each image has the nearest one before it that differs. Only a
    batch of nothing but copies is mixed with itself.
    """
    places = np.arange(len(indices))
    nearest = places.copy()
    for distance in range(1, len(indices)):
        partners = np.roll(places, distance)
        differ = indices[partners] != indices
        if differ.all():
            return partners
        nearest = np.where((nearest == places) & differ, partners, nearest)
    return nearest


def mixup(values: np.ndarray, partners: np.ndarray, share: float) -> np.ndarray:
    """``share`` of the values and the rest of their partners', as float32."""
    others = values[partners]
    values = values.astype(np.float32)
    values *= np.float32(share)
    values += np.float32(1 - share) * others
    return values


def cutmix(
    images: np.ndarray, partners: np.ndarray, share: float, centre: tuple[float, float]
) -> tuple[np.ndarray, float]:
    """Images with a rectangle of their partners', and the share of the area still theirs."""
    inside, share = rectangle(share, centre, *images.shape[2:])
    return np.where(inside, images[partners], images), share


def rectangle(
    share: float, centre: tuple[float, float], h: int, w: int
) -> tuple[np.ndarray, float]:
    """What lies in a rectangle of the area ``1 - share``, ``[h, w]``, and the share left outside.

    ``centre`` is (down, across) in shares of the sides; edges of the image cut the rectangle.
    """
    side = np.sqrt(1 - share)
    (top, bottom), (left, right) = (
        (max(0, int(at * n) - int(side * n) // 2), min(n, int(at * n) + int(side * n) // 2))
        for at, n in zip(centre, (h, w), strict=True)
    )
    inside = np.zeros((h, w), bool)
    inside[top:bottom, left:right] = True
    return inside, 1 - (bottom - top) * (right - left) / (h * w)
