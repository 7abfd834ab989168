"""The schema: every section of a config, with its keys, types, bounds and defaults."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    Tag,
)

from resnet_fit.errors import UserError
from resnet_fit.home import expand

PositiveInt = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Below1 = Annotated[float, Field(ge=0, lt=1)]
# YAML 1.1 reads the word off as False.
OrOff = BeforeValidator(lambda value: "off" if value is False else value)


def _absolute(path: str) -> str:
    try:
        return str(expand(path).absolute())
    except UserError as error:
        raise ValueError(str(error)) from None


# A file or folder, absolute once it is read: a run can go on from any working directory.
Location = Annotated[str, AfterValidator(_absolute)]


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
    stochastic_depth: Below1 = 0.0
    weights: Location | None = None


class DenseNet(Section):
    """Arguments of `resnet_fit.densenet`. Classes and input channels come from the data."""

    name: Literal["densenet"] = "densenet"
    depth: Annotated[int | list[int], _depth(121, "block sizes (such as [6, 12, 24, 16])")]
    stem: Literal["imagenet", "cifar"] = "imagenet"
    growth: PositiveInt | None = None
    weights: Location | None = None


class Cache(Section):
    """Decoded images kept in a file, shrunk to ``shorter_side`` pixels.

    The transforms then act on these. They are made at the first run, in the user's cache folder or
    in the folder ``path``, and again for files that change; see `resnet_fit.data.cache`.
    """

    shorter_side: PositiveInt
    path: Location | None = None


class Data(Section):
    """What to train and test on.

    ``validation`` holds out that share of the training set. Epochs are then judged on it, and the
    test set is used once, after the last epoch. ``limit`` takes so many images of each part, each
    class its share. ``on_bad_image: skip`` leaves unreadable files out of the training, and lists
    them. ``sampler: balanced`` trains on all classes equally often; with ``repeats`` each image
    comes so many times in a row, differently augmented, and so fewer of them in an epoch. ``cache``
    spares decoding images again in every epoch. ``compare`` is how a run that goes on knows that
    its data are the same: by names, numbers and content, for which every file is opened at the
    start, or by ``names`` and numbers alone.
    """

    name: Literal["cifar10", "cifar100", "digits", "folder"]
    path: Location | None = None
    validation: Below1 = 0.0
    split_seed: Annotated[int, Field(ge=0)] = 0
    batch_size: PositiveInt = 128
    eval_batch_size: PositiveInt = 250
    drop_last: bool = False
    limit: PositiveInt | None = None
    on_bad_image: Literal["error", "skip"] = "error"
    sampler: Literal["shuffled", "balanced"] = "shuffled"
    repeats: PositiveInt = 1
    workers: Annotated[int, Field(ge=0)] | None = None
    cache: Cache | None = None
    compare: Literal["content", "names"] = "content"


class Mixing(Section):
    """Arguments of `resnet_fit.data.mixing.Mix`."""

    mixup: NonNegative = 0.0
    cutmix: NonNegative = 0.0
    share: Share = 1.0


class Progressive(Section):
    """Images of ``start`` pixels a side in the first epoch, of full size at ``until``.

    ``until`` is a share of the training; sizes lie ``step`` pixels apart.
    """

    start: PositiveInt
    until: Annotated[float, Field(gt=0, le=1)] = 0.75
    step: PositiveInt = 4


class Augmentation(Section):
    """Ordered operations. Each entry is a name, or a name with options.

    ``mix`` blends the finished images of a batch in pairs, and their labels. With ``on_device`` the
    last operations of a list, and mixing, are computed where the network is: for a GPU whose loader
    keeps it waiting.
    """

    train: list[Any] = ["normalize"]
    eval: list[Any] = ["normalize"]
    mix: Mixing | None = None
    progressive: Progressive | None = None
    on_device: bool = False


class _Optimizer(Section):
    """``reference_batch_size`` is the batch size the learning rate was found for.

    Where it is given, the rate used is ``learning_rate * batch / reference_batch_size``.
    ``rate_factors`` multiplies it for layers of the network and all within them:
    ``{layer3: 0.3, layer4: 0.5}``, or ``{backbone: 0.1}`` for all but the last one.
    """

    learning_rate: Positive
    reference_batch_size: PositiveInt | None = None
    weight_decay: NonNegative = 0.0
    decay_norms_and_biases: bool = False
    rate_factors: dict[str, Positive] = {}


class SGD(_Optimizer):
    name: Literal["sgd"]


class Momentum(_Optimizer):
    """``fused`` makes one operation of the steps of all parameters, which a GPU starts once."""

    name: Literal["momentum"]
    momentum: Below1 = 0.9
    nesterov: bool = False
    fused: bool = False


class Adam(_Optimizer):
    """``adam`` adds the weight decay to the gradient, ``adamw`` applies it to the weights.

    ``fused`` is as of momentum, for ``adam`` only.
    """

    name: Literal["adam", "adamw"]
    beta1: Below1 = 0.9
    beta2: Below1 = 0.999
    epsilon: Positive = 1e-8
    fused: bool = False


class Lamb(_Optimizer):
    """For large batches: each layer's step is as long as its weights say (You et al. 2019)."""

    name: Literal["lamb"]
    beta1: Below1 = 0.9
    beta2: Below1 = 0.999
    epsilon: Positive = 1e-6


class Muon(_Optimizer):
    """Arguments of `resnet_fit.training.orthogonal.Muon`.

    ``learning_rate`` is the angle by which a step turns a convolution's weights; all else has
    ``other_rate``, and alone ``weight_decay``. Both rates are for ``reference_batch_size``.
    """

    name: Literal["muon"]
    other_rate: Positive
    momentum: Below1 = 0.95
    nesterov: bool = True


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
    """Automatic mixed precision: Paddle's level, and the type of the fast operations.

    At O1 weights stay in float32. A CPU has bfloat16 alone, by the onednn engine, and only where
    the processor computes in it.
    """

    level: Annotated[Literal["off", "O1"], OrOff] = "off"
    dtype: Literal["float16", "bfloat16"] = "float16"


class EMA(Section):
    """Arguments of `resnet_fit.WeightAverage`."""

    decay: Annotated[float, Field(gt=0, lt=1)] = 0.999
    warm_up: bool = True


def _class_weights(value: Any) -> str | list[float] | None:
    if value is None or value == "balanced":
        return value
    numbers = isinstance(value, list) and value and all(type(n) in (int, float) for n in value)
    if numbers and min(value) > 0:
        return value
    raise ValueError("expected balanced, or a list with a number above 0 for each class")


class EarlyStopping(Section):
    """Ends the training after ``patience`` epochs that did not beat the best ``monitor``."""

    patience: PositiveInt
    min_delta: NonNegative = 0.0


class Training(Section):
    """How long and by what means.

    ``engine``: Paddle's own operations (``framework``; on a GPU in half precision rather
    ``channels_last``) or, on a CPU, those of oneDNN, which are several times faster; ``auto`` takes
    what is fastest on the device. ``compile`` makes one static graph of Paddle's own operations.
    ``accumulate`` batches make one optimizer step; ``clip_norm`` bounds the gradients' global norm.
    ``on_nan``: what to do when a step makes NaN or infinite numbers: stop the run, or leave the
    step out. ``ema`` averages the weights. ``loss: binary_cross_entropy`` takes each class for
    itself, and with ``target_threshold`` every class of more than that probability for a whole one.
    ``class_weights`` multiplies the loss by class; ``balanced`` makes up for unequal numbers of
    images. ``freeze`` keeps layers of the network as they are; ``backbone`` is all but the last
    one. ``flip_averaging`` also reports what images and their mirror images reach together.
    ``adapt_threads`` lets a CPU compute with fewer threads while other processes need its cores and
    that is faster; results then depend on them, by rounding.
    """

    epochs: PositiveInt
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    device: Annotated[str, Field(pattern=r"^(auto|cpu|gpu(:\d+)?)$")] = "auto"
    engine: Literal["auto", "framework", "channels_last", "onednn"] = "auto"
    compile: Annotated[Literal["off", "static", "cinn"], OrOff] = "off"
    loss: Literal["cross_entropy", "binary_cross_entropy"] = "cross_entropy"
    label_smoothing: Below1 = 0.0
    target_threshold: Share | None = None
    class_weights: Annotated[Any, PlainValidator(_class_weights)] = None
    freeze: list[str] = []
    clip_norm: Positive | None = None
    accumulate: PositiveInt = 1
    amp: Amp = Amp()
    on_nan: Literal["stop", "skip"] = "stop"
    ema: EMA | None = None
    early_stopping: EarlyStopping | None = None
    flip_averaging: bool = False
    adapt_threads: bool = False


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
    optimizer: Annotated[SGD | Momentum | Adam | Lamb | Muon, Field(discriminator="name")]
    schedule: Annotated[
        Constant | Step | MultiStep | Cosine | OneCycle, Field(discriminator="name")
    ] = Constant()
    training: Training
    checkpoint: Checkpoint = Checkpoint()
    logging: Logging = Logging()
