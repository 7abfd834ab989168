"""What settings are made of: types with bounds, and parts that own their settings."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)
from typing_extensions import Self

from resnet_fit.config.document import Document
from resnet_fit.config.problems import Problem, problems_of, raise_problems
from resnet_fit.errors import UserError
from resnet_fit.home import expand

if TYPE_CHECKING:
    from resnet_fit.runs.config import Config

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Below1 = Annotated[float, Field(ge=0, lt=1)]
Between0And1 = Annotated[float, Field(gt=0, lt=1)]
# YAML 1.1 reads the word off as False.
OrOff = BeforeValidator(lambda value: "off" if value is False else value)


def _switch(value: Any) -> Any:
    if isinstance(value, bool) or value == "auto":
        return value
    raise ValueError("expected true, false or auto")


# A run resolves auto once it knows its device (`runs/automatic.py`).
AutoSwitch = Annotated[bool | Literal["auto"], BeforeValidator(_switch)]


def absolute(path: str) -> str:
    """A path from the root, with ``~`` replaced; raises ValueError for a user without a home."""
    try:
        return str(expand(path).absolute())
    except UserError as error:
        raise ValueError(str(error)) from None


# A file or folder, absolute once it is read: a run can go on from any working directory.
Location = Annotated[str, AfterValidator(absolute)]


class Settings(BaseModel):
    """A section of a config: unknown keys are refused, and types are not converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @classmethod
    def of(cls, **values: Any) -> Self:
        """Settings from Python values, checked as those of a config are; numpy numbers are taken.

        Raises:
            UserError: with one line for each mistake.
        """
        try:
            settings = cls.model_validate({key: _plain(value) for key, value in values.items()})
            problems = list(settings.problems(None))
        except ValidationError as error:
            problems = problems_of(error, cls)
        raise_problems(problems, Document({}))
        return settings

    def problems(self, config: Config | None) -> Iterator[Problem]:
        """Settings that are valid alone and wrong together; paths begin at this section.

        Args:
            config: the whole experiment, for rules that concern other sections; None where the
                settings are used alone.
        """
        return iter(())

    def no_effect(self, config: Config) -> Iterator[Problem]:
        """Settings that are valid and change nothing, most likely not what was meant."""
        return iter(())


class Part(Settings):
    """Settings that a config chooses by kind and name, and that build what they describe.

    A subclass is registered by `resnet_fit.config.registry.part`, and describes each setting with
    a sentence in its docstring, below ``Args:``. It must be importable without Paddle; its
    ``build`` may import it. What ``build`` takes and returns is told by the kind's own base class.
    """

    part_name: ClassVar[str] = ""  # what a config calls this part


def _plain(value: Any) -> Any:
    """Python's own number for one of numpy's, and a list for whatever has items."""
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping)):
        return [_plain(item) for item in value]
    if isinstance(value, numbers.Integral) and not isinstance(value, (bool, int)):
        return int(value)
    if isinstance(value, numbers.Real) and not isinstance(value, (bool, int, float)):
        return float(value)
    return value
