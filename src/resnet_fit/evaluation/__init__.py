"""Evaluation of a trained network: metrics, mistakes, calibration, and a report of them.

`evaluate` computes, `save` writes. Names are imported at their first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnet_fit.lazy import exports

if TYPE_CHECKING:
    from resnet_fit.evaluation.evaluation import Evaluation, evaluate
    from resnet_fit.evaluation.folder import save

__all__ = ["Evaluation", "evaluate", "save"]

__getattr__ = exports(__name__, {"evaluation": ("Evaluation", "evaluate"), "folder": ("save",)})
