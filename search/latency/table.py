"""LatencyTable: measured blocks, with how often and how evenly; looked up by exact key, never guessed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from search.latency.conditions import Conditions
from search.spaces.block import BlockSpec, Settings, Shape
from targets.errors import InvalidModel, UsageError, printable
from targets.files import write_atomic
from targets.records import Frozen

BlockKey = tuple[str, tuple[Shape, ...], tuple[Shape, ...], Settings]
"""Kind, input shapes, output shapes, settings: see :attr:`search.spaces.block.BlockSpec.key`."""

_MOST_BYTES = 256 * 2**20
_Size = Annotated[int, Field(ge=1, le=2**31)]
_Shape = tuple[_Size, _Size, _Size]


class TableHeader(Frozen):
    """What all rows share.

    Attributes:
        format: Says what the file is.
        schema_version: Version of this layout.
        conditions: What the rows hold for.
        made_at: When the table was put together.
        source: How the rows came about: ``profile`` by this kit, else the importer's name.
        noise_floor: Relative standard deviation of one block's repeats, the median over blocks measured repeatedly;
            ``None`` where none was.
        notes: What a reader must know, one sentence each.
    """

    format: Literal["inas-deploy latency table"] = "inas-deploy latency table"
    schema_version: Literal[1] = 1
    conditions: Conditions
    made_at: datetime
    source: str
    noise_floor: Annotated[float, Field(ge=0)] | None = None
    notes: tuple[str, ...] = ()


class Row(Frozen):
    """One block's latency over its observations, each from one session.

    Attributes:
        kind: Block kind.
        inputs: Shape of each input.
        outputs: Shape of each output.
        settings: Sorted settings by name.
        macs: Multiply-accumulates; 0 where an importer could not know.
        params: Parameters; 0 where an importer could not know.
        count: Observations.
        p10_us: 10th percentile over observations, microseconds.
        p50_us: Median over observations, microseconds.
        spread: Relative standard deviation over observations; ``None`` with a single one.
    """

    kind: Annotated[str, Field(min_length=1, max_length=200)]
    inputs: tuple[_Shape, ...]
    outputs: tuple[_Shape, ...]
    settings: tuple[tuple[str, int], ...] = ()
    macs: Annotated[int, Field(ge=0)] = 0
    params: Annotated[int, Field(ge=0)] = 0
    count: Annotated[int, Field(ge=1)]
    p10_us: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    p50_us: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    spread: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None

    @property
    def key(self) -> BlockKey:
        """As :attr:`search.spaces.block.BlockSpec.key`."""
        return self.kind, self.inputs, self.outputs, self.settings

    @property
    def spec(self) -> BlockSpec:
        """The block without a name."""
        return BlockSpec("", *self.key, self.params, self.macs)


@dataclass(frozen=True)
class LatencyTable:
    """Measured blocks of one space on one device.

    Attributes:
        header: What all rows share.
        rows: Rows by key.
    """

    header: TableHeader
    rows: Mapping[BlockKey, Row] = field(default_factory=dict)

    @classmethod
    def of(cls, header: TableHeader, rows: Iterable[Row]) -> LatencyTable:
        """Put rows together.

        Raises:
            InvalidModel: If two rows have one key.
        """
        found: dict[BlockKey, Row] = {}
        for row in rows:
            if row.key in found:
                raise InvalidModel(f"a latency table holds a block twice: {describe(row.key)}", "Remove one of them.")
            found[row.key] = row
        return cls(header, found)

    def latency_us(self, specs: Sequence[BlockSpec]) -> list[float]:
        """Median latency of each block, microseconds.

        Raises:
            UsageError: If one of them was not measured: there is no zero for what is not known.
        """
        missing = [spec.key for spec in specs if spec.key not in self.rows]
        if missing:
            raise UsageError(
                f"the latency table lacks {len(missing)} of {len(specs)} blocks, first {describe(missing[0])}",
                "Measure longer (inas-deploy profile --resume --minutes ...), or use the predictor.",
            )
        return [self.rows[spec.key].p50_us for spec in specs]

    def write(self, path: Path) -> None:
        """Write JSON lines: the header, then a row a line; the file appears whole."""
        lines = [self.header.model_dump_json(), *(row.model_dump_json() for row in self.rows.values())]
        write_atomic(path, ("\n".join(lines) + "\n").encode())

    @classmethod
    def read(cls, path: Path) -> LatencyTable:
        """Read what :meth:`write` wrote.

        Raises:
            UsageError: If there is no such file.
            InvalidModel: If a line is damaged, naming it.
        """
        try:
            if path.stat().st_size > _MOST_BYTES:
                raise InvalidModel(f"{path} is larger than any latency table", "Name another file.")
            lines = path.read_bytes().splitlines()
        except OSError as error:
            raise UsageError(f"cannot read the latency table {path}: {error.strerror}", "Check the path.") from error
        if not lines:
            raise InvalidModel(f"{path} is empty", "Make the table again: inas-deploy profile.")
        header = _parsed(TableHeader, lines[0], path, 1)
        return cls.of(header, (_parsed(Row, line, path, number) for number, line in enumerate(lines[1:], 2)))


def describe(key: BlockKey) -> str:
    """A block in words, for messages."""
    kind, inputs, outputs, settings = key
    shapes = " + ".join("x".join(map(str, shape)) for shape in inputs)
    out = " + ".join("x".join(map(str, shape)) for shape in outputs)
    words = " ".join(f"{name}={value}" for name, value in settings)
    return printable(f"{kind} {shapes} -> {out} {words}".strip(), 200)


def _parsed(kind: Any, line: bytes, path: Path, number: int) -> Any:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the line"
        raise InvalidModel(
            f"{path}, line {number} is no {'header' if kind is TableHeader else 'row'} of a latency table: "
            f"{printable(place, 60)}: {printable(str(first['msg']), 120)}",
            "Make the table again: inas-deploy profile.",
        ) from error
