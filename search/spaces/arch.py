"""What every architecture is: frozen data with schema version and space id, canonical JSON, a hash (no torch)."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from search.spaces.block import BlockSpec
from targets.errors import UsageError
from targets.records import Frozen

Width = Annotated[int, Field(ge=1, le=8192, strict=True)]
"""A channel count; a bool, a float or a string is refused."""
Classes = Annotated[int, Field(ge=1, le=1000, strict=True)]
"""Output maps: 1 for saliency, else the number of classes."""
UNTRAINED_NOTE = "untrained weights: for latency only"
"""What a reader must know about a network that was made from an architecture alone."""


class Arch(Frozen):
    """Base of all architectures.

    A subclass narrows ``schema_version`` and ``space`` to literals and adds plain, immutable fields. JSON is the only
    way in and out: nothing is evaluated or unpickled.

    Attributes:
        schema_version: Version of the subclass's layout.
        space: Id of the search space.
    """

    schema_version: Any
    space: Any

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: object, info: ValidationInfo) -> object:
        if info.mode == "json" and isinstance(values, dict):  # defaults are for Python; a file says all
            for name in cls.model_fields:
                if name not in values:
                    raise ValueError(f"{name}: Field required")
        return values

    @field_validator("schema_version", mode="before")
    @classmethod
    def _whole_number(cls, value: object) -> object:
        if type(value) is not int:  # a literal 1 would take True and 1.0
            raise ValueError("must be a whole number")
        return value

    @abstractmethod
    def blocks(self, input_size: tuple[int, int]) -> tuple[BlockSpec, ...]:
        """The blocks of the deployed network in execution order, with shapes.

        Args:
            input_size: Height and width in pixels.

        Returns:
            One spec a block; their parameters and MACs sum to those of the reparameterized network, to the digit.

        Raises:
            UsageError: If the network cannot take the input size.
        """

    @classmethod
    def checked(cls, values: object, what: str | None = None) -> Self:
        """Validate plain data.

        Args:
            values: A mapping with the class's attributes.
            what: How to call it in an error.

        Raises:
            UsageError: Naming the first field that is wrong, by its path.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            what = what or f"{cls.__name__.removesuffix('Arch')} architecture"
            raise UsageError(f"{what} is not valid: {first_problem(error)}") from error

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what ``to_json`` wrote; every key must be there, those with a default too.

        Raises:
            UsageError: If the text is no JSON or no valid architecture; it names the field by its path.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            what = f"{cls.__name__.removesuffix('Arch')} architecture JSON"
            raise UsageError(f"{what} is not valid: {first_problem(error)}") from error

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    def sha256(self) -> str:
        """Hash of the canonical JSON, in hexadecimal."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def first_problem(error: ValidationError) -> str:
    """The first problem of a validation error as ``path: what``.

    A validator that looks at the whole architecture says the path itself: ``ValueError("widths[3][1]: 83 is ...")``.
    """
    first = error.errors()[0]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    message = first["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message
