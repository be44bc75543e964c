"""LatencyPredictor: block predictions summed, calibrated to whole networks, with an interval; in one file."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, ValidationError

from search.latency.calibration import MOST_PARTS, Calibration, fit_calibration, left_out
from search.latency.conditions import Conditions
from search.latency.intervals import COVERAGE, Interval, learn_interval
from search.latency.model import Floats, Prediction
from search.latency.pace import Reference
from search.latency.part_sums import PartSums
from search.latency.population import part_of
from search.spaces.arch import Arch
from search.spaces.registry import find_space
from targets.errors import InvalidModel, UsageError, printable
from targets.records import Frozen

if TYPE_CHECKING:
    from search.latency.block_predictor import BlockPredictor
    from search.latency.population import Population

Measured = Sequence[tuple[Arch, float]]
"""Architectures with the p10 of their whole network, milliseconds."""
FILE_KIND: Literal["inas-deploy latency predictor"] = "inas-deploy latency predictor"
_BLOCKS = "blocks."


class StaleWarning(UserWarning):
    """A predictor is used that fresh measurements have contradicted."""


class NetworkPart(Frozen):
    """What the file holds besides the block predictor.

    Attributes:
        schema_version: Version of this layout.
        conditions: What the predictions hold for.
        calibration: From block sums to whole networks.
        interval: How far off they may be.
        reference: The network at whose usual latency all figures are told; ``None`` where none took turns.
        stale: Why not to trust it any more, one sentence; empty where nothing speaks against it.
        notes: What a reader must know, one sentence each.
    """

    schema_version: Literal[1] = 1
    conditions: Conditions
    calibration: Calibration
    interval: Interval
    reference: Reference | None = None
    stale: Annotated[str, Field(max_length=1000)] = ""
    notes: Annotated[tuple[Annotated[str, Field(max_length=1000)], ...], Field(max_length=MOST_PARTS)] = ()


@dataclass(frozen=True)
class LatencyPredictor:
    """Latency of whole networks from their blocks; a :class:`search.latency.model.LatencyModel`.

    Attributes:
        blocks: Predicts single blocks.
        network: Calibration, interval and what they hold for.
    """

    blocks: BlockPredictor
    network: NetworkPart
    _sums: PartSums = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        sums = PartSums(self.network.conditions, lambda specs: self.blocks.predict_blocks(specs).latency_us.tolist())
        object.__setattr__(self, "_sums", sums)

    @classmethod
    def fit(
        cls,
        blocks: BlockPredictor,
        calibration: Measured,
        apart: Measured = (),
        *,
        conditions: Conditions | None = None,
        coverage: float = COVERAGE,
        repeatability: float = 0.0,
        reference: Reference | None = None,
        notes: Sequence[str] = (),
    ) -> Self:
        """Calibrate to whole networks.

        Args:
            blocks: The fitted block predictor.
            calibration: Networks for intercept and slopes; up to ten, chosen by
                :func:`search.latency.calibration.choose_archs`.
            apart: Networks for the interval only, measured in the same way; best 20 or more. Without them the interval
                comes from the calibration's own networks, each left out in turn.
            conditions: What the networks were measured on, where it is not what the blocks were.
            coverage: Share of networks that an interval is to cover.
            repeatability: Relative standard deviation of one network's repeats.
            reference: The network at whose usual latency the figures are told, where there is one.
            notes: What a reader must know.

        Raises:
            UsageError: If a network is foreign, holds an unknown block, or the figures make no calibration.
            MissingExtra: If torch or scipy is not installed.
        """
        conditions = conditions or blocks.conditions
        sums = PartSums(conditions, lambda specs: blocks.predict_blocks(specs).latency_us.tolist())
        parts = _parts(conditions)
        part_ms = sums.matrix([arch for arch, _ in calibration], parts)
        measured_ms = np.array([ms for _, ms in calibration], np.float64)
        fitted = fit_calibration(part_ms, measured_ms, parts)
        if apart:
            guesses_ms = fitted.apply(sums.matrix([arch for arch, _ in apart], parts))
            measured_ms = np.array([ms for _, ms in apart], np.float64)
        else:
            guesses_ms = left_out(part_ms, measured_ms, fitted)
        interval = learn_interval(
            guesses_ms, measured_ms, coverage=coverage, apart=bool(apart), repeatability=repeatability
        )
        network = NetworkPart(
            conditions=conditions, calibration=fitted, interval=interval, reference=reference, notes=tuple(notes)
        )
        return cls(blocks, network)

    @classmethod
    def uncalibrated(cls, blocks: BlockPredictor) -> Self:
        """The plain sum of block predictions, without an interval."""
        calibration = Calibration.none(_parts(blocks.conditions))
        network = NetworkPart(conditions=blocks.conditions, calibration=calibration, interval=Interval.unknown())
        return cls(blocks, network)

    @property
    def name(self) -> str:
        """``predictor``."""
        return "predictor"

    @property
    def conditions(self) -> Conditions:
        """What its latencies hold for."""
        return self.network.conditions

    def predict(self, archs: Sequence[Any] | Population) -> Prediction:
        """Latencies of whole networks; see :class:`search.latency.model.LatencyModel`.

        Warns:
            StaleWarning: Where fresh measurements have contradicted it.

        Raises:
            UsageError: If an architecture is of another space or size, or holds a block outside of what was measured.
        """
        if self.network.stale:
            warnings.warn(self.network.stale, StaleWarning, stacklevel=2)
        latency_ms = self.network.calibration.apply(self.part_ms(archs))
        if len(latency_ms) and latency_ms.min() <= 0:
            raise UsageError(
                f"a network is predicted to take {latency_ms.min():.3g} ms: it is far smaller than those measured",
                "Calibrate with networks of that size too.",
            )
        return self.network.interval.around(latency_ms)

    def part_ms(self, archs: Sequence[Any] | Population) -> Floats:
        """Summed block predictions by part, not calibrated, milliseconds, (N, parts); raises as :meth:`predict`."""
        return self._sums.matrix(archs, self.network.calibration.parts)

    def refusal(self, arch: Arch) -> str:
        """Why an architecture's latency cannot be known, ``""`` where it can."""
        return next(filter(None, map(self.blocks.refusal, arch.blocks(self.conditions.input_size))), "")

    def marked_stale(self, reason: str) -> Self:
        """The same predictor, which says on every use why it is not to be trusted; with ``""`` it no longer does."""
        return replace(self, network=self.network.model_copy(update={"stale": printable(reason, 900)}))

    def save(self, path: Path) -> None:
        """Write one safetensors file with the JSON in its metadata; it appears whole.

        Raises:
            UsageError: If the place cannot be written.
        """
        from search.latency.predictor_file import write_parts

        plain, tensors = self.blocks.to_parts()
        content = {"network": self.network.model_dump(mode="json"), "blocks": plain}
        write_parts(path, FILE_KIND, content, {f"{_BLOCKS}{name}": tensor for name, tensor in tensors.items()})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what :meth:`save` wrote; nothing in the file is run.

        Raises:
            UsageError: If there is no such file.
            InvalidModel: If it is damaged, of another kind or version, or does not fit together.
            MissingExtra: If torch or safetensors is not installed.
        """
        from search.latency.block_predictor import BlockPredictor
        from search.latency.predictor_file import read_parts

        content, tensors = read_parts(path, FILE_KIND)
        try:
            network = NetworkPart.model_validate_json(json.dumps(content.get("network")))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise InvalidModel(
                f"{path} is no latency predictor: {printable(place, 60)}: {printable(str(first['msg']))}",
                "Make it again: inas-deploy profile.",
            ) from error
        own = {name.removeprefix(_BLOCKS): tensor for name, tensor in tensors.items()}
        blocks = BlockPredictor.from_parts(_mapping(content.get("blocks"), path), own)
        _check_reference(network, path)
        return cls(blocks, network)


def _check_reference(network: NetworkPart, path: Path) -> None:
    """Refuse a reference that is no network of the space: else only a check on the device would find it out."""
    if network.reference is None:
        return
    try:
        arch = network.reference.architecture
        find_space(network.conditions.space, network.conditions.classes).validate(arch)
        arch.check_request(network.conditions.input_size)
    except UsageError as error:
        raise InvalidModel(
            f"{path} is no latency predictor: reference: {printable(error.what)}", "Make it again: inas-deploy profile."
        ) from error


def _mapping(content: object, path: Path) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise InvalidModel(f"{path} is no latency predictor: it holds no blocks", "Make it again: inas-deploy profile.")
    return content


def _parts(conditions: Conditions) -> tuple[str, ...]:
    """Names of the parts of a space's networks: the first steps of their blocks' module paths."""
    space = find_space(conditions.space, conditions.classes)
    blocks = space.blocks(space.biggest(), conditions.input_size)
    return tuple(dict.fromkeys(part_of(block.name) for block in blocks))
