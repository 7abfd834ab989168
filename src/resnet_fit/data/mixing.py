"""Mixup and CutMix: pairs of images of a batch are mixed, and their labels with them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from resnet_fit.errors import require


@dataclass(frozen=True)
class Mix:
    """Mix each image of a batch with another image of the batch.

    A share ``l`` is drawn from Beta(alpha, alpha) for the whole batch. Mixup (Zhang et al. 2017)
    blends ``l`` of the image with ``1 - l`` of its partner. CutMix (Yun et al. 2019) pastes a
    rectangle of the partner, ``1 - l`` of the area, into the image; at an edge the rectangle is
    clipped and ``l`` computed again. Labels become probabilities, blended by the same share.

    Args:
        mixup: alpha of mixup; 0 turns it off.
        cutmix: alpha of CutMix; 0 turns it off. With both, each batch has one or the other.
        share: the share of the batches that are mixed.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    share: float = 1.0

    def __post_init__(self) -> None:
        for name in ("mixup", "cutmix"):
            require(0 <= getattr(self, name) < np.inf, name, getattr(self, name), "0 or more")
        require(0 <= self.share <= 1, "share", self.share, "0 to 1")

    def __call__(
        self,
        images: Any,
        labels: np.ndarray,
        classes: int,
        rng: np.random.Generator,
        partners: np.ndarray,
        backend: Any = None,
    ) -> tuple[Any, np.ndarray]:
        """Mix images ``[N, C, H, W]`` and labels ``[N]``; labels become float32 ``[N, classes]``.

        ``partners`` int64 ``[N]`` is the index in the batch of the image that each one is mixed
        with. ``backend`` is the module with ``mixup`` and ``cutmix`` for these images; by default
        this one, for arrays.
        """
        backend = backend or sys.modules[__name__]
        targets = np.eye(classes, dtype=np.float32)[labels]
        # Always draw all four, so that no setting changes the random numbers of another.
        mixes, which, y, x = rng.random(4)
        alphas = [alpha for alpha in (self.mixup, self.cutmix) if alpha > 0]
        if not alphas or mixes >= self.share:
            return images, targets
        cuts = self.cutmix > 0 and (self.mixup == 0 or which < 0.5)
        alpha = self.cutmix if cuts else self.mixup
        share = float(rng.beta(alpha, alpha))
        if cuts:
            images, share = backend.cutmix(images, partners, share, (y, x))
        else:
            images = backend.mixup(images, partners, share)
        return images, mixup(targets, partners, share)


def different_partners(indices: np.ndarray) -> np.ndarray:
    """For each image of a batch, the index of a partner in the batch that is not a copy of it.

    ``indices`` ``[N]`` are indices into the data set, in which repeated images are equal. Image
    ``i`` gets image ``i - d`` as its partner (modulo ``N``). ``d`` is the smallest distance at
    which no image gets a copy of itself; if all images differ it is 1. If there is none, because
    one image fills half of the batch, each image gets the nearest different one before it. If all
    images are copies, each is its own partner.
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
    """``share * values + (1 - share) * values[partners]``, as float32."""
    others = values[partners]
    values = values.astype(np.float32)
    values *= np.float32(share)
    values += np.float32(1 - share) * others
    return values


def cutmix(
    images: np.ndarray, partners: np.ndarray, share: float, centre: tuple[float, float]
) -> tuple[np.ndarray, float]:
    """Images with a rectangle of their partners, and the share of the area that is unchanged."""
    inside, share = rectangle(share, centre, *images.shape[2:])
    return np.where(inside, images[partners], images), share


def rectangle(
    share: float, centre: tuple[float, float], h: int, w: int
) -> tuple[np.ndarray, float]:
    """The mask ``[h, w]`` of a rectangle with area ``1 - share``, and the share outside of it.

    ``centre`` is (y, x), relative to the sides; the rectangle is clipped at the image's edges.
    """
    side = np.sqrt(1 - share)
    (top, bottom), (left, right) = (
        (max(0, int(at * n) - int(side * n) // 2), min(n, int(at * n) + int(side * n) // 2))
        for at, n in zip(centre, (h, w), strict=True)
    )
    inside = np.zeros((h, w), bool)
    inside[top:bottom, left:right] = True
    return inside, 1 - (bottom - top) * (right - left) / (h * w)
