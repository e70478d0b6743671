"""What every group of settings is: a frozen dataclass that checks its fields once."""

import functools
from typing import Annotated, Any, TypeVar, dataclass_transform

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
T = TypeVar("T")
Channel = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Decay = Annotated[float, Field(ge=0, lt=1)]


@dataclass_transform(frozen_default=True, kw_only_default=True)
def settings(cls: type[T]) -> type[T]:
    """A frozen dataclass whose constructor raises `ValueError`, one line for each bad field."""
    checked: Any = dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))(cls)
    construct = checked.__init__

    @functools.wraps(construct)
    def init(self: T, **fields: Any) -> None:
        try:
            construct(self, **fields)
        except ValidationError as error:
            raise ValueError("\n".join(problems(error))) from None

    checked.__init__ = init
    return checked


def problems(error: ValidationError) -> list[str]:
    """One line for each field that failed: its name, what is wrong, and the value."""
    lines = []
    for item in error.errors():
        field = ".".join(str(part) for part in item["loc"]) or "the file"
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "value_error":  # Ours: they name the field and the value.
            lines.append(message)
        elif item["type"] == "unexpected_keyword_argument":
            lines.append(f"{field}: there is no such setting")
        else:
            lines.append(f"{field}: {message}; got {item['input']!r}")
    return lines
