"""A block predictor as JSON data and arrays, and back, with everything checked on the way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from search.latency.block_predictor import BlockPredictor
from search.latency.block_report import BlockReport
from search.latency.conditions import Conditions
from search.latency.fields import Featurizer, Form
from search.latency.form_model import FormModel
from search.latency.mlp import Ensemble
from search.torch_or_stub import torch
from targets.errors import InvalidModel, UsageError, printable
from targets.records import Frozen

_NETWORKS = "networks."
_LAYERS = f"{_NETWORKS}layer"
_MOST_POWER = 8
_AGAIN = "Make the predictor again: inas-deploy profile."

_Whole = Annotated[int, Field(ge=0, le=2**31)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Quantile = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class FormPart(Frozen):
    """One form: see :class:`search.latency.form_model.FormModel`.

    Attributes:
        kind: Block kind.
        inputs: Number of inputs.
        outputs: Number of outputs.
        settings: Names of settings.
        low: Least of each field seen.
        high: Most of each field seen.
        sizes: Heights and widths seen.
        choices: Values seen of each setting that is no number of channels, by column.
    """

    kind: str
    inputs: Annotated[int, Field(ge=0, le=64)]
    outputs: Annotated[int, Field(ge=0, le=64)]
    settings: tuple[str, ...]
    low: tuple[_Whole, ...]
    high: tuple[_Whole, ...]
    sizes: tuple[tuple[_Whole, ...], ...]
    choices: dict[_Whole, tuple[_Whole, ...]]


class BlocksPart(Frozen):
    """All that is no array.

    Attributes:
        schema_version: Version of this layout.
        conditions: What the predictor holds for.
        forms: Its forms.
        quantiles: Half width of the interval by kind, in units of noise and spread.
        noise: Relative standard deviation of a measured block.
        report: How good it was on blocks it did not see.
    """

    schema_version: Literal[1] = 1
    conditions: Conditions
    forms: tuple[FormPart, ...]
    quantiles: dict[str, _Quantile]
    noise: _Positive
    report: BlockReport


def to_parts(predictor: BlockPredictor) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """JSON data and arrays of a predictor; the held-out blocks are left out.

    Layers were trained in single precision, so that nothing is lost by storing them in it.
    """
    forms, tensors = [], {f"{_NETWORKS}{name}": tensor for name, tensor in predictor.ensemble.tensors().items()}
    tensors.update({name: tensor.float() for name, tensor in tensors.items() if name.startswith(_LAYERS)})
    for number, known in enumerate(predictor.forms.values()):
        forms.append(
            FormPart(
                **known.form._asdict(),
                low=tuple(known.low.astype(int).tolist()),
                high=tuple(known.high.astype(int).tolist()),
                sizes=tuple(sorted(known.sizes)),
                choices={at: tuple(sorted(values)) for at, values in known.choices.items()},
            )
        )
        tensors[f"form{number}.powers"] = torch.as_tensor(known.powers)
        tensors[f"form{number}.factors"] = torch.as_tensor(known.factors)
        tensors[f"form{number}.center"] = torch.as_tensor(predictor.features.centers[number])
        tensors[f"form{number}.scale"] = torch.as_tensor(predictor.features.scales[number])
    part = BlocksPart(
        conditions=predictor.conditions,
        forms=tuple(forms),
        quantiles=dict(predictor.quantiles),
        noise=predictor.noise,
        report=predictor.report,
    )
    return part.model_dump(mode="json"), tensors


def from_parts(values: Any, tensors: Mapping[str, torch.Tensor]) -> BlockPredictor:
    """Put together what :func:`to_parts` gave.

    Args:
        values: The JSON data.
        tensors: The arrays.

    Raises:
        InvalidModel: If a value or an array is missing, wrong or too many.
    """
    try:
        part = BlocksPart.model_validate_json(json.dumps(values))
    except ValidationError as error:
        first = error.errors()[0]
        place = printable(".".join(map(str, first["loc"])), 60)
        raise InvalidModel(f"no block predictor: {place}: {printable(str(first['msg']))}", _AGAIN) from error
    try:
        ensemble = Ensemble.of(
            {n.removeprefix(_NETWORKS): t.double() for n, t in tensors.items() if n.startswith(_NETWORKS)}
        )
    except UsageError as error:
        raise InvalidModel(f"a damaged block predictor: {error.what}", _AGAIN) from error
    forms = tuple(Form(form.kind, form.inputs, form.outputs, form.settings) for form in part.forms)
    _check(part, forms, ensemble, tensors)
    models = {
        form[:3]: FormModel(
            form,
            np.array(stored.low, dtype=np.float64),
            np.array(stored.high, dtype=np.float64),
            frozenset(stored.sizes),
            {at: frozenset(seen) for at, seen in stored.choices.items()},
            tensors[f"form{number}.powers"].numpy(),
            tensors[f"form{number}.factors"].numpy(),
        )
        for number, (form, stored) in enumerate(zip(forms, part.forms, strict=True))
    }
    centers, scales = (
        [tensors[f"form{number}.{what}"].numpy() for number in range(len(forms))] for what in ("center", "scale")
    )
    features = Featurizer(forms, centers, scales)
    if len(models) != len(forms) or features.count != ensemble.features:
        raise InvalidModel("a damaged block predictor: its networks are not for its forms", _AGAIN)
    return BlockPredictor(part.conditions, models, features, ensemble, part.quantiles, part.noise, part.report)


def _dtype(name: str) -> torch.dtype:
    if name.startswith(_LAYERS):
        return torch.float32
    return torch.int64 if name.endswith(".powers") else torch.float64


def _check(part: BlocksPart, forms: tuple[Form, ...], ensemble: Ensemble, tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuse arrays of wrong types, shapes or values, and wrong lengths in the JSON."""
    wanted = {f"{_NETWORKS}{name}" for name in ensemble.tensors()}
    wanted |= {f"form{n}.{what}" for n in range(len(forms)) for what in ("powers", "factors", "center", "scale")}
    if set(tensors) != wanted or "" not in part.quantiles:
        raise InvalidModel("a damaged block predictor: an array is missing or too many", _AGAIN)
    for name, tensor in tensors.items():
        if tensor.dtype != _dtype(name):
            raise InvalidModel(f"a damaged block predictor: {printable(name, 60)} is of the wrong type", _AGAIN)
    for number, (form, stored) in enumerate(zip(forms, part.forms, strict=True)):
        width = len(form.columns)
        powers, factors, center, scale = (
            tensors[f"form{number}.{what}"] for what in ("powers", "factors", "center", "scale")
        )
        choices = {at for at in range(width) if form.is_choice[at]}
        if (
            powers.shape != (factors.shape[-1], width)
            or factors.shape != (ensemble.members, len(powers))
            or not center.shape == scale.shape == (width,)
            or not len(stored.low) == len(stored.high) == width
            or set(stored.choices) != choices
            or any(len(size) != 2 * form.slots for size in stored.sizes)
        ):
            raise InvalidModel(f"a damaged block predictor: form {number} does not fit together", _AGAIN)
        if not len(powers) or powers.min() < 0 or powers.max() > _MOST_POWER or factors.min() < 0 or scale.min() < 0:
            raise InvalidModel(f"a damaged block predictor: form {number} has values out of bounds", _AGAIN)
