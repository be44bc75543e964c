"""Blocks as numbers: the form of a block, its fields, and features of them for a network.

Nothing here knows a block kind: fields are the shapes and settings of a ``BlockSpec`` as they are. Fields are what
gradients are taken by, so features are computed from them in torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from search.spaces.block import BlockSpec
from search.torch_or_stub import torch

Floats = NDArray[np.float64]
CHOICES = frozenset(
    {
        *("act", "dilation", "grouped", "groups", "heads", "inputs", "kernel", "patch", "pooled", "ratio"),
        *("shortcut", "stride"),
    }
)
"""Settings that are no numbers of channels; every other setting is."""
COUNT = "inputs"
"""Setting that tells how many inputs of one shape a block has."""
STEPS = (4, 8, 16, 32)
"""Channels that devices work on at a time; latency climbs in stairs of these."""


def folded(spec: BlockSpec) -> BlockSpec:
    """The block with inputs of one shape told once, their number as the setting ``inputs``; others as they are.

    A sum of two maps and a sum of three are then told apart by a number, and what is learnt of one holds for the other.
    """
    if len(spec.inputs) < 2 or len(set(spec.inputs)) > 1:
        return spec
    settings = tuple(sorted((*spec.settings, (COUNT, len(spec.inputs)))))
    return spec._replace(inputs=spec.inputs[:1], settings=settings)


class Form(NamedTuple):
    """What blocks must share to have the same fields.

    Attributes:
        kind: Block kind.
        inputs: Number of inputs; 1 where all have one shape (:func:`folded`).
        outputs: Number of outputs.
        settings: Names of settings, sorted; a block that lacks one has 0 there.
    """

    kind: str
    inputs: int
    outputs: int
    settings: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the fields: ``in0.c``, ``in0.h``, ``in0.w``, ... ``out0.c``, ..., then ``set.<name>``."""
        slots = [f"in{n}" for n in range(self.inputs)] + [f"out{n}" for n in range(self.outputs)]
        return (*(f"{slot}.{axis}" for slot in slots for axis in "chw"), *(f"set.{name}" for name in self.settings))

    @property
    def is_width(self) -> tuple[bool, ...]:
        """Per field, whether it is a number of channels."""
        return tuple(
            name.endswith(".c") if not name.startswith("set.") else name[4:] not in CHOICES for name in self.columns
        )

    @property
    def is_size(self) -> tuple[bool, ...]:
        """Per field, whether it is a height or width in pixels."""
        return tuple(not name.startswith("set.") and name[-2:] in {".h", ".w"} for name in self.columns)

    @property
    def is_choice(self) -> tuple[bool, ...]:
        """Per field, whether it is neither: a kernel, a stride, a flag."""
        return tuple(not wide and not size for wide, size in zip(self.is_width, self.is_size, strict=True))

    @property
    def slots(self) -> int:
        """Inputs and outputs."""
        return self.inputs + self.outputs

    def fields(self, spec: BlockSpec) -> tuple[int, ...]:
        """The block's fields, in the order of :attr:`columns`; settings the form does not know are left out."""
        spec = folded(spec)
        settings = {COUNT: 1, **dict(spec.settings)}
        shapes = (*spec.inputs, *spec.outputs)
        return (*(value for shape in shapes for value in shape), *(settings.get(name, 0) for name in self.settings))


def forms_of(specs: Iterable[BlockSpec]) -> dict[tuple[str, int, int], Form]:
    """The forms of blocks by :func:`form_key`; each knows all settings that a block of its key has."""
    names: dict[tuple[str, int, int], set[str]] = {}
    for spec in specs:
        names.setdefault(form_key(spec), set()).update(name for name, _ in folded(spec).settings)
    return {key: Form(*key, tuple(sorted(names[key]))) for key in sorted(names)}


def form_key(spec: BlockSpec) -> tuple[str, int, int]:
    """Kind, number of inputs (1 where all have one shape), number of outputs."""
    return spec.kind, len(folded(spec).inputs), len(spec.outputs)


class Featurizer:
    """Features of fields, the same for every form: logarithms, places within the form's range, stairs, the form.

    Args:
        forms: All forms.
        centers: Per form the mean of ``log1p(fields)``, (C,).
        scales: Per form what the distance to it is multiplied with, (C,); 0 for a field that never varied.
    """

    def __init__(self, forms: Sequence[Form], centers: Sequence[Floats], scales: Sequence[Floats]) -> None:
        self.forms, self.centers, self.scales = list(forms), list(centers), list(scales)
        names = sorted({name for form in forms for name in form.columns})
        widths = sorted({n for form in forms for n, yes in zip(form.columns, form.is_width, strict=True) if yes})
        self._places = [_selection(form, {name: at for at, name in enumerate(names)}) for form in forms]
        self._widths = [_selection(form, {name: at for at, name in enumerate(widths)}) for form in forms]

    @classmethod
    def of(cls, rows: Mapping[Form, Floats]) -> Featurizer:
        """From the fields of training rows by form, each (N, C)."""
        logs = [np.log1p(fields) for fields in rows.values()]
        spreads = [log.std(axis=0) for log in logs]
        scales = [np.where(spread > 1e-9, 1 / np.maximum(spread, 1e-9), 0.0) for spread in spreads]
        return cls(list(rows), [log.mean(axis=0) for log in logs], scales)

    @property
    def count(self) -> int:
        """Number of features."""
        return 2 * self._places[0].shape[1] + len(STEPS) * self._widths[0].shape[1] + len(self.forms)

    def __call__(self, form: int, fields: torch.Tensor, *, smooth: bool = False) -> torch.Tensor:
        """Features of blocks of one form.

        Args:
            form: Index of the form.
            fields: (N, C), double precision; need not be whole numbers.
            smooth: Take the average over a stair for where a width stands on it, so that the result has no steps and
                its gradient is the trend.

        Returns:
            (N, features).
        """
        logs = torch.log1p(fields)
        place, width = self._places[form], self._widths[form]
        standard = (logs - torch.as_tensor(self.centers[form])) * torch.as_tensor(self.scales[form])
        varies = torch.as_tensor((self.scales[form] > 0).astype(np.float64))
        stairs = []
        for step in STEPS:
            missing = torch.full_like(fields, (step - 1) / 2) if smooth else torch.remainder(-fields, step)
            stairs.append((missing / step * varies) @ width)
        hot = torch.zeros(len(fields), len(self.forms), dtype=torch.float64)
        hot[:, form] = 1
        return torch.cat([logs @ place, standard @ place, *stairs, hot], dim=1)


def _selection(form: Form, places: Mapping[str, int]) -> torch.Tensor:
    """(C, places): 1 where a field goes."""
    found = torch.zeros(len(form.columns), len(places), dtype=torch.float64)
    for row, name in enumerate(form.columns):
        if name in places:
            found[row, places[name]] = 1
    return found
