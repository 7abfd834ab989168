"""Evaluations to look at without a training."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np

from resnet_fit.evaluation.predictions import Predictions


def predictions(logits, labels, classes=None, features=None) -> Predictions:
    """Of given logits; images are named by their number."""
    logits = np.asarray(logits, np.float32)
    names = classes or tuple(f"class {i}" for i in range(logits.shape[1]))
    numbers = [str(i) for i in range(len(logits))]
    return Predictions(names, np.asarray(labels), logits, None, numbers, features, 1.0)


def drawn(images=400, classes=7, sharpness=2.0, seed=0) -> Predictions:
    """Logits that are right more often than not, and some equal ones."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, images)
    logits = rng.normal(size=(images, classes)).astype(np.float32)
    logits[np.arange(images), labels] += sharpness
    logits[:5] = 0
    return predictions(logits, labels)


class Page(HTMLParser):
    """What a browser would find in a page: addresses, tags and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href", "xlink:href", "action")]

    def handle_data(self, data):
        self.text += data
