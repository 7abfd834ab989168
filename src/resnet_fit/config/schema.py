"""The schema: every section of a config, with its keys, types, bounds and defaults."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, PlainValidator, Tag

PositiveInt = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Below1 = Annotated[float, Field(ge=0, lt=1)]


# What a model is whose ``name`` is left out.
USUAL_MODEL = "resnet"


def _depth(such_as: int, sizes: str) -> PlainValidator:
    """One message for both forms of a depth, where a union would give one for each."""

    def validate(value: Any) -> int | list[int]:
        numbers = value if isinstance(value, list) and value else [value]
        if all(type(n) is int and n > 0 for n in numbers):
            return value
        raise ValueError(f"expected a depth (such as {such_as}) or a list of {sizes}")

    return PlainValidator(validate)


def _model_name(value: Any) -> str:
    """The name that tells what kind of model a section describes."""
    if isinstance(value, dict):
        return str(value.get("name", USUAL_MODEL))
    return getattr(value, "name", USUAL_MODEL)


class Section(BaseModel):
    """A part of a config: unknown keys are refused, and types are not converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class ResNet(Section):
    """Arguments of `resnet_fit.resnet`. Classes and input channels come from the data."""

    name: Literal["resnet"] = "resnet"
    depth: Annotated[int | list[int], _depth(18, "stage sizes (such as [2, 2, 2, 2])")]
    stem: Literal["imagenet", "cifar", "cifar3"] = "imagenet"
    shortcut: Literal["projection", "zero-pad", "none"] = "projection"
    stride_on: Literal["3x3", "1x1"] = "3x3"
    block: Literal["basic", "bottleneck"] | None = None
    width: PositiveInt | None = None
    zero_init_residual: bool = False
    weights: str | None = None


class DenseNet(Section):
    """Arguments of `resnet_fit.densenet`. Classes and input channels come from the data."""

    name: Literal["densenet"] = "densenet"
    depth: Annotated[int | list[int], _depth(121, "block sizes (such as [6, 12, 24, 16])")]
    stem: Literal["imagenet", "cifar"] = "imagenet"
    growth: PositiveInt | None = None
    weights: str | None = None


class Data(Section):
    """What to train and test on.

    ``validation`` holds out that share of the training set. Epochs are then judged on it, and the
    test set is used once, after the last epoch. ``limit`` takes so many images of each part, each
    class its share. ``on_bad_image: skip`` leaves unreadable files out of the training, and lists
    them.
    """

    name: Literal["cifar10", "cifar100", "digits", "folder"]
    path: str | None = None
    validation: Below1 = 0.0
    split_seed: Annotated[int, Field(ge=0)] = 0
    batch_size: PositiveInt = 128
    eval_batch_size: PositiveInt = 250
    drop_last: bool = False
    limit: PositiveInt | None = None
    on_bad_image: Literal["error", "skip"] = "error"
    workers: Annotated[int, Field(ge=0)] | None = None


class Augmentation(Section):
    """Ordered operations. Each entry is a name, or a name with options."""

    train: list[Any] = ["normalize"]
    eval: list[Any] = ["normalize"]


class _Optimizer(Section):
    """``reference_batch_size`` is the batch size the learning rate was found for.

    Where it is given, the rate used is ``learning_rate * batch / reference_batch_size``.
    """

    learning_rate: Positive
    reference_batch_size: PositiveInt | None = None
    weight_decay: NonNegative = 0.0
    decay_norms_and_biases: bool = False


class SGD(_Optimizer):
    name: Literal["sgd"]


class Momentum(_Optimizer):
    name: Literal["momentum"]
    momentum: Below1 = 0.9
    nesterov: bool = False


class Adam(_Optimizer):
    """``adam`` adds the weight decay to the gradient, ``adamw`` applies it to the weights."""

    name: Literal["adam", "adamw"]
    beta1: Below1 = 0.9
    beta2: Below1 = 0.999
    epsilon: Positive = 1e-8


class _Schedule(Section):
    """Linear warm-up from ``warmup_start`` (a share of the full rate) leads into every schedule."""

    warmup_epochs: NonNegative = 0.0
    warmup_start: Share = 0.0


class Constant(_Schedule):
    name: Literal["constant"] = "constant"


class Step(_Schedule):
    name: Literal["step"]
    every_epochs: Positive
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1


class MultiStep(_Schedule):
    name: Literal["multi_step"]
    at_epochs: Annotated[list[Positive], Field(min_length=1)]
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1


class Cosine(_Schedule):
    name: Literal["cosine"]
    end: Share = 0.0


class OneCycle(_Schedule):
    """From ``start`` up to the full rate at ``peak`` (a share of the training), down to ``end``."""

    name: Literal["one_cycle"]
    peak: Annotated[float, Field(gt=0, lt=1)] = 0.3
    start: Share = 0.04
    end: Share = 0.0
    shape: Literal["linear", "cosine"] = "cosine"


class Amp(Section):
    """Automatic mixed precision: Paddle's levels, and the type of the fast operations.

    On a CPU that computes in bfloat16 itself, O1 with ``dtype: bfloat16`` is what the onednn engine
    can do.
    """

    level: Literal["off", "O1", "O2"] = "off"
    dtype: Literal["float16", "bfloat16"] = "float16"


class EMA(Section):
    """Arguments of `resnet_fit.WeightAverage`."""

    decay: Annotated[float, Field(gt=0, lt=1)] = 0.999
    warm_up: bool = True


class EarlyStopping(Section):
    """Ends the training after ``patience`` epochs that did not beat the best ``monitor``."""

    patience: PositiveInt
    min_delta: NonNegative = 0.0


class Training(Section):
    """How long and by what means.

    ``engine``: Paddle's own operations (``framework``) or, on a CPU, those of oneDNN, which are
    several times faster; ``auto`` takes what is fastest on the device. ``accumulate`` batches make
    one optimizer step; ``clip_norm`` bounds the gradients' global norm. ``on_nan``: what to do when
    a loss or a gradient is NaN or infinite: stop the run, or leave the step out. ``ema`` averages
    the weights.
    """

    epochs: PositiveInt
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    device: Annotated[str, Field(pattern=r"^(auto|cpu|gpu(:\d+)?)$")] = "auto"
    engine: Literal["auto", "framework", "onednn"] = "auto"
    label_smoothing: Below1 = 0.0
    clip_norm: Positive | None = None
    accumulate: PositiveInt = 1
    amp: Amp = Amp()
    on_nan: Literal["stop", "skip"] = "stop"
    ema: EMA | None = None
    early_stopping: EarlyStopping | None = None


class Checkpoint(Section):
    """``best`` is the epoch with the best ``monitor``, a metric of the evaluation.

    ``last`` is saved after each epoch, and within one every ``every_minutes`` and, where given,
    every ``every_steps`` steps. The newest ``keep`` epochs stay as ``epoch-0001`` etc.
    """

    monitor: str = "top1"
    mode: Literal["max", "min"] = "max"
    every_minutes: Positive = 10.0
    every_steps: PositiveInt | None = None
    keep: Annotated[int, Field(ge=0)] = 0


class Logging(Section):
    visualdl: bool = True
    every_steps: PositiveInt = 20


class Config(Section):
    """A whole experiment."""

    model: Annotated[
        Annotated[ResNet, Tag("resnet")] | Annotated[DenseNet, Tag("densenet")],
        Discriminator(_model_name),
    ]
    data: Data
    augmentation: Augmentation = Augmentation()
    optimizer: Annotated[SGD | Momentum | Adam, Field(discriminator="name")]
    schedule: Annotated[
        Constant | Step | MultiStep | Cosine | OneCycle, Field(discriminator="name")
    ] = Constant()
    training: Training
    checkpoint: Checkpoint = Checkpoint()
    logging: Logging = Logging()
