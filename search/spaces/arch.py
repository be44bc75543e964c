"""What every architecture is: frozen data with schema version and space id, canonical JSON, a hash (no torch)."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from search.spaces.block import BlockSpec, total
from targets.errors import UsageError, printable
from targets.records import Frozen

Width = Annotated[int, Field(ge=1, le=8192, strict=True)]
"""A channel count; a bool, a float or a string is refused."""
Classes = Annotated[int, Field(ge=1, le=1000, strict=True)]
"""Output maps: 1 for saliency, else the number of classes."""
UNTRAINED_NOTE = "untrained weights: for latency only"
"""What a reader must know about a network that was made from an architecture alone."""
MAX_PIXELS = 8192 * 8192
"""Largest input, height times width, that a network is made for."""
MAX_PARAMETERS = 500_000_000
"""Largest network that is made: 2 GB of float32, before an exporter copies it."""
_LONGEST_STEP = 80
_LONGEST_MESSAGE = 200


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

    def check_request(self, input_size: tuple[int, int]) -> None:
        """Refuse what no network can be made for, before any memory is taken.

        Args:
            input_size: Height and width in pixels.

        Raises:
            UsageError: If the network cannot take the input size, or it or the network is beyond all measure.
        """
        check_pixels(input_size)
        parameters = total(self.blocks(input_size))[0]
        if parameters > MAX_PARAMETERS:
            raise UsageError(
                f"the {self.space} network would have {parameters:,} parameters", f"The most is {MAX_PARAMETERS:,}."
            )

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
            raise UsageError(f"{what} is not valid: {first_problem(error, values)}") from error

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what ``to_json`` wrote; every key must be there, those with a default too.

        Raises:
            UsageError: If the text is no JSON or no valid architecture; it names the field by its path.
        """
        try:
            content = parse_json(text)
        except UsageError as error:
            raise UsageError(f"{cls._json_name()} is not valid: {error.what}", error.fix) from error
        return cls.from_parsed_json(content)

    @classmethod
    def from_parsed_json(cls, content: object) -> Self:
        """``from_json`` for what ``parse_json`` made of the text.

        Raises:
            UsageError: If it is no valid architecture; it names the field by its path.
        """
        try:
            return cls.model_validate_json(json.dumps(content))  # JSON mode: lists for tuples, every key
        except ValidationError as error:
            raise UsageError(f"{cls._json_name()} is not valid: {first_problem(error, content)}") from error

    @classmethod
    def _json_name(cls) -> str:
        return f"{cls.__name__.removesuffix('Arch')} architecture JSON"

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    def sha256(self) -> str:
        """Hash of the canonical JSON, in hexadecimal."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def check_pixels(input_size: tuple[int, int]) -> None:
    """Refuse an input that no memory holds.

    Args:
        input_size: Height and width in pixels.

    Raises:
        UsageError: If there are more than ``MAX_PIXELS``.
    """
    height, width = input_size
    if height * width > MAX_PIXELS:
        raise UsageError(
            f"an input of {height}x{width} (height x width) is too large", f"The most is {MAX_PIXELS:,} pixels."
        )


def parse_json(text: str | bytes) -> object:
    """JSON of an architecture as plain data.

    Raises:
        UsageError: If the text is not plain UTF-8, no JSON, or holds a key twice.
    """
    fix = "Give what Arch.to_json wrote."
    try:
        plain = text.decode() if isinstance(text, bytes) else text
    except UnicodeDecodeError as error:
        raise UsageError("the architecture is not UTF-8 text", fix) from error
    if plain.startswith("\ufeff") or "\0" in plain:  # zeros: UTF-16 without a mark
        raise UsageError("the architecture is not plain UTF-8 (it has a byte order mark or zeros)", fix)
    try:
        content: object = json.loads(plain, object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the architecture is no JSON ({printable(str(error), _LONGEST_MESSAGE)})", fix) from error
    return content


def _without_repetition(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    content: dict[str, object] = {}
    for key, value in pairs:
        if key in content:  # readers differ in which one they take
            raise ValueError(f"the key {printable(key, _LONGEST_STEP)!r} is there twice")
        content[key] = value
    return content


def first_problem(error: ValidationError, values: object) -> str:
    """The first problem of a validation error as ``path: what``, on one short printable line.

    A validator that looks at the whole architecture says the path itself: ``ValueError("widths[3][1]: 83 is ...")``.

    Args:
        error: The error.
        values: What was validated.
    """
    first = error.errors(include_url=False)[0]
    place = "".join(
        f"[{step}]" if isinstance(step, int) else f".{printable(step, _LONGEST_STEP)}"
        for step in _steps(first["loc"], values, missing=first["type"] == "missing")
    ).lstrip(".")
    message = printable(first["msg"].removeprefix("Value error, "), _LONGEST_MESSAGE)
    return f"{place}: {message}" if place else message


def _steps(location: Sequence[int | str], value: Any, *, missing: bool) -> list[int | str]:
    """The steps of an error's location that are in the data: pydantic puts the chosen member of a union among them."""
    steps: list[int | str] = []
    for index, step in enumerate(location):
        if isinstance(value, Mapping):
            inside = step in value
        else:
            inside = isinstance(value, Sequence) and isinstance(step, int) and step < len(value)
        if inside or (missing and index == len(location) - 1):
            steps.append(step)
        if inside:
            value = value[step]
    return steps
