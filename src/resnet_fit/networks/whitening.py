"""A first convolution that whitens: its outputs are uncorrelated, and their variance is one.

Its filters are the eigenvectors of patches of the images, divided by the root of their eigenvalues
(Page 2019, "How to train your ResNet", part 8; Jordan 2024, "94% on CIFAR-10 in 3.29 seconds",
section 3.2).
"""

from __future__ import annotations

import numpy as np
from paddle import nn

from resnet_fit.errors import require

# Added to eigenvalues, so that the smallest ones do not blow up noise; the value of Jordan 2024.
EPSILON = 5e-4
# Patches are taken from at most so many places along the shorter side of an image.
PLACES = 32


def whiten(layer: nn.Conv2D, images: np.ndarray) -> None:
    """Replace a convolution's filters by those that whiten images, and train them no more.

    The first filters are the eigenvectors of the largest eigenvalues, followed by the same with the
    opposite sign, since a ReLU passes one side only. Filters beyond both stay as they are.

    Args:
        layer: weights ``[O, C, H, W]``.
        images: some hundred of them, as the network gets them, ``[N, C, H, W]``.

    Raises:
        UserError: the images have other channels than the layer, or are smaller than its kernel.
    """
    weight = layer.weight.numpy()
    filters = whitening_filters(images, weight.shape[1:])
    half = min(len(weight) // 2, len(filters))
    weight[:half], weight[half : 2 * half] = filters[:half], -filters[:half]
    layer.weight.set_value(weight)
    layer.weight.stop_gradient = True


def whitening_filters(images: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """All whitening filters of one shape ``(C, H, W)``, those of the largest variance first.

    Returns:
        ``[C * H * W, C, H, W]``, float32.
    """
    channels, rows, columns = shape
    expected = f"[N, {channels}, {rows} or more, {columns} or more]"
    fits = images.ndim == 4 and images.shape[1] == channels
    fits = fits and images.shape[2] >= rows and images.shape[3] >= columns
    require(fits, "images", list(images.shape), expected)
    windows = np.lib.stride_tricks.sliding_window_view(images, (rows, columns), axis=(2, 3))
    step = -(-min(windows.shape[2:4]) // PLACES)
    places = windows[:, :, ::step, ::step].transpose(0, 2, 3, 1, 4, 5)
    values, vectors = np.linalg.eigh(_covariance(places))
    filters = (vectors / np.sqrt(values + EPSILON)).T[::-1]
    return filters.reshape(-1, *shape).astype("float32")


def _covariance(places: np.ndarray) -> np.ndarray:
    """The covariance of patches ``[N, rows, columns, ...]``, with those of one image in memory."""

    def patches(image: np.ndarray) -> np.ndarray:
        return image.reshape(image.shape[0] * image.shape[1], -1).astype("float64")

    count = places.shape[0] * places.shape[1] * places.shape[2]
    mean = sum(patches(image).sum(axis=0) for image in places) / count
    deviations = (patches(image) - mean for image in places)
    return sum(d.T @ d for d in deviations) / (count - 1)
