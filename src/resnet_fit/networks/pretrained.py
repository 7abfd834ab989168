"""Weights for ImageNet that paddle.vision publishes: fetched once, and kept where Paddle does."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

from resnet_fit.downloads import download
from resnet_fit.errors import UserError
from resnet_fit.files import digest_of
from resnet_fit.home import home
from resnet_fit.networks.families.network import IMAGENET, Network
from resnet_fit.networks.found_weights import find_weights

CHANNELS = 3


def weights_file(settings: Network, weights: str | os.PathLike[str], channels: int) -> Path:
    """The file that a network starts from.

    Args:
        settings: of the network; for ``imagenet`` they have no `imagenet_problems`.
        weights: a file, the folder of a checkpoint or run, or ``imagenet``.
        channels: of its images.

    Raises:
        UserError: there is no such file, it cannot be downloaded, or the images do not have 3
            channels.
    """
    if weights != IMAGENET:
        return find_weights(weights)
    if channels != CHANNELS:
        raise UserError(
            f"model.weights: imagenet are for images of {CHANNELS} channels, these have {channels}"
        )
    return imagenet_weights(settings.imagenet_name())


def imagenet_weights(name: str) -> Path:
    """The file of paddle.vision's weights for one of its networks, downloaded if need be.

    Args:
        name: of the network, such as ``resnet50``.

    Raises:
        UserError: it is not there and cannot be downloaded, or another file is in its place.
    """
    url, md5 = _published(name)
    file = url.rpartition("/")[2]
    target = _folder(file, url) / file
    if target.exists():
        _verify(target, md5, url)
    else:
        download(f"model.weights: {file}", [url], target, md5, f"put {url} at {target}")
    return target


def _published(name: str) -> tuple[str, str]:
    """The address and the MD5 that the installed Paddle has for a network."""
    module = "densenet" if name.startswith("densenet") else "resnet"
    table = importlib.import_module(f"paddle.vision.models.{module}").model_urls
    if name not in table:
        raise UserError(f"model.weights: imagenet: this version of Paddle has none for {name}")
    return table[name]


def _folder(file: str, url: str) -> Path:
    """Where Paddle itself looks for weights."""
    own = home()
    if own is None:
        raise UserError(
            f"model.weights: there is no home folder to download {file} to (HOME is not set): put "
            f"{url} into a folder, and give its path"
        )
    return own / ".cache" / "paddle" / "hapi" / "weights"


def _verify(target: Path, md5: str, url: str) -> None:
    try:
        found = digest_of(target, "md5")
    except OSError as error:
        raise UserError(f"{target}: cannot be read: {error.strerror}") from None
    if found != md5:
        raise UserError(
            f"{target}: damaged, or another file (md5 {found}, expected {md5}); delete it and run "
            f"again to download it, or put {url} in its place"
        )
