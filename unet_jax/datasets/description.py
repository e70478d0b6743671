"""What a person, or a look at the masks, says about what mask values mean."""

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from unet_jax.batch import IGNORED
from unet_jax.config.settings import problems, settings
from unet_jax.datasets.encoding import Colour, Encoding, number, voc_palette
from unet_jax.datasets.errors import DataError

Byte = Annotated[int, Field(ge=0, le=255)]
Value = Annotated[int, Field(ge=0, le=65535)] | tuple[Byte, Byte, Byte]


@settings
class Description:
    """The classes of a data set, and what stands for each in its masks.

    As YAML:

        classes: [background, cell, nucleus]
        values: [0, 128, 255]              # each class's grey level or palette index; or
        colours: [[0, 0, 0], [0, 255, 0], [255, 0, 0]]   # each class's colour; or neither: 0, 1, 2
        ignore: [7]                        # values or colours of pixels that count for nothing
        white: 4095                        # of grey 16-bit images; 65535 unless given
    """

    classes: Annotated[tuple[str, ...], Field(min_length=2, max_length=IGNORED)]
    values: tuple[Annotated[int, Field(ge=0, le=65535)], ...] | None = None
    colours: tuple[tuple[Byte, Byte, Byte], ...] | None = None
    ignore: tuple[Value, ...] = ()
    white: Annotated[int, Field(ge=1, le=65535)] = 65535

    @model_validator(mode="after")
    def _check(self) -> "Description":
        if self.values is not None and self.colours is not None:
            raise ValueError("values, colours: only one of them can be what masks hold")
        for name in ("values", "colours"):
            given = getattr(self, name)
            if given is not None and len(given) != len(self.classes):
                raise ValueError(f"{name}: {len(given)} for {len(self.classes)} classes")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes: one of them stands there twice")
        for value in self.ignore:
            if isinstance(value, tuple) != (self.colours is not None):
                kind = "a value" if self.colours is None else "a colour"
                raise ValueError(f"ignore: {value} must be {kind}, as the classes have")
        everything = [*self._keys(), *(_key(value) for value in self.ignore)]
        if len(set(everything)) != len(everything):
            raise ValueError("values, colours, ignore: one of them stands there twice")
        return self

    def _keys(self) -> list[int]:
        if self.colours is not None:
            return [number(colour) for colour in self.colours]
        return list(range(len(self.classes)) if self.values is None else self.values)

    def encoding(self) -> Encoding:
        ids = {key: index for index, key in enumerate(self._keys())}
        ids |= {_key(value): IGNORED for value in self.ignore}
        return Encoding(ids, colour=self.colours is not None)

    def palette(self) -> tuple[Colour, ...]:
        return self.colours or voc_palette(len(self.classes))


def _key(value: Any) -> int:
    return number(value) if isinstance(value, tuple) else value


def read_description(path: Path) -> Description:
    """Reads the YAML file.

    Raises:
      DataError: It is not there, or says something that cannot be; a line for each field.
    """
    try:
        fields = yaml.safe_load(path.expanduser().read_text(encoding="utf-8"))
        return TypeAdapter(Description).validate_python(fields)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    except ValidationError as error:
        raise DataError("\n".join(f"{path}: {line}" for line in problems(error))) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # Of `2020-13-45`, of `[[[[…`.
        raise DataError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
