"""Which layers a backend computes by itself. All others are handed to Paddle, in Paddle's layout.

Checked at each call, by a few attributes: hooks may come and go, and weights may be converted.
"""

from __future__ import annotations

import paddle
from paddle import Tensor, nn

from resnet_fit.errors import UserError

# For `in`, which tries identity first: Paddle's == of types is slow.
FLOAT32 = (paddle.float32,)


def is_untouched(layer: nn.Layer) -> bool:
    """Whether a call of ``layer`` does what its class says, and nothing else.

    Hooks expect to be called, with images ``[N, C, H, W]``; Paddle's weight norm is a hook as well.
    """
    return (
        not layer._forward_pre_hooks
        and not layer._forward_post_hooks
        and "forward" not in layer.__dict__
    )


def is_plain(layer: nn.Layer, kind: type[nn.Layer]) -> bool:
    """Whether ``layer`` computes what ``kind`` computes: a subclass may compute something else."""
    return type(layer) is kind and is_untouched(layer)


def is_plain_convolution(layer: nn.Layer) -> bool:
    """A convolution that `paddle.nn.functional.conv2d` can do in either layout."""
    return (
        is_plain(layer, nn.Conv2D)
        and layer._padding_mode == "zeros"
        and layer._data_format == "NCHW"
    )


def is_plain_norm(layer: nn.Layer) -> bool:
    """A batch norm that `paddle.nn.functional.batch_norm` can do in either layout."""
    return is_plain(layer, nn.BatchNorm2D) and layer._data_format == "NCHW"


def onednn_convolves(layer: nn.Layer) -> bool:
    """A convolution of float32 weights without groups, dilation or padding of one side only."""
    return (
        is_plain_convolution(layer)
        and layer._groups == 1
        and layer._dilation == [1, 1]
        and layer._padding_algorithm == "EXPLICIT"
        and len(layer._updated_padding) == 2  # four where the sides differ
        and _are_float32(layer, "weight")
        and (layer.bias is None or _are_float32(layer, "bias"))
    )


def onednn_normalizes(layer: nn.Layer, x: Tensor) -> bool:
    """A batch norm of float32 with scale and shift, over more than one value per channel.

    Paddle returns a single value as it is; oneDNN would give zero. Without an epsilon, the zeros
    that channels are padded with would become NaN. In evaluation, ``use_global_stats=False`` takes
    the batch's statistics in Paddle's way.
    """
    return (
        is_plain_norm(layer)
        and _are_float32(layer, "weight", "bias", "_mean", "_variance")
        and layer._epsilon > 0
        and (layer.training or layer._use_global_stats is not False)
        and (not layer.training or x.shape[0] * x.shape[1] * x.shape[2] > 1)
    )


def check_float32(layer: nn.Layer) -> None:
    """Raise UserError for a layer of parameters that the onednn backend would have to round.

    Raises:
        UserError: naming the parameter.
    """
    for name, parameter in layer.named_parameters():
        if parameter.dtype not in FLOAT32:
            dtype = str(parameter.dtype).rpartition(".")[2]
            raise UserError(
                f"the onednn backend computes with parameters of float32, but {name} of "
                f"{layer.full_name()} is {dtype}; use the backend 'paddle'"
            )


def _are_float32(layer: nn.Layer, *names: str) -> bool:
    """Whether ``layer`` has all these parameters, in float32."""
    parameters = layer._parameters  # an attribute of a layer takes ten times as long
    for name in names:
        parameter = parameters.get(name)
        if parameter is None or parameter.dtype not in FLOAT32:
            return False
    return True
