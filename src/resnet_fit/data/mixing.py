"""Images of a batch mixed in pairs, and their labels with them: mixup and CutMix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from resnet_fit.errors import UserError


@dataclass(frozen=True)
class Mix:
    """Mix each batch with itself, moved on by one image.

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
        self, images: np.ndarray, labels: np.ndarray, classes: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Images ``[N, C, H, W]`` and labels ``[N]`` as images and float32 ``[N, classes]``."""
        targets = np.eye(classes, dtype=np.float32)[labels]
        # All are drawn in any case: what one of them says must not move the others.
        mixes, which, y, x = rng.random(4)
        alphas = [alpha for alpha in (self.mixup, self.cutmix) if alpha > 0]
        if not alphas or mixes >= self.share:
            return images, targets
        cuts = self.cutmix > 0 and (self.mixup == 0 or which < 0.5)
        alpha = self.cutmix if cuts else self.mixup
        share = float(rng.beta(alpha, alpha))
        partners = np.roll(images, 1, axis=0)
        if cuts:
            images, share = cutmix(images, partners, share, (y, x))
        else:
            images = mixup(images, partners, share)
        return images, mixup(targets, np.roll(targets, 1, axis=0), share)


def mixup(values: np.ndarray, partners: np.ndarray, share: float) -> np.ndarray:
    """``share`` of the values and the rest of their partners, as float32."""
    values = values.astype(np.float32)
    values *= np.float32(share)
    values += np.float32(1 - share) * partners
    return values


def cutmix(
    images: np.ndarray, partners: np.ndarray, share: float, centre: tuple[float, float]
) -> tuple[np.ndarray, float]:
    """Images with a rectangle of their partners, and the share of the area that is still theirs.

    ``centre`` is the rectangle's, (down, across) in shares of the sides.
    """
    h, w = images.shape[2:]
    side = np.sqrt(1 - share)
    (top, bottom), (left, right) = (
        (max(0, int(at * n) - int(side * n) // 2), min(n, int(at * n) + int(side * n) // 2))
        for at, n in zip(centre, (h, w), strict=True)
    )
    mixed = images.copy()
    mixed[:, :, top:bottom, left:right] = partners[:, :, top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (h * w)
