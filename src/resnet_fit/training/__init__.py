"""From a config to a fitted `paddle.Model`, and the parts to do it by hand."""

from resnet_fit.training.losses import CrossEntropy
from resnet_fit.training.metrics import MeanLoss, TopK, classification_metrics
from resnet_fit.training.optimizers import make_optimizer

__all__ = ["CrossEntropy", "MeanLoss", "TopK", "classification_metrics", "make_optimizer"]
