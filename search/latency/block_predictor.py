"""Latency of a block from its shapes and settings, with an interval, and a refusal where it cannot be known.

A non-negative sum of products (:mod:`search.latency.baseline`) for each form of block, times what an ensemble of
networks (:mod:`search.latency.mlp`) makes of the fields. Each member is fitted without one fifth of the block keys, so
that every block is judged by networks that never saw it, three of them; the intervals come from those errors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.latency.block_report import BlockReport, HeldOutBlock, report_of
from search.latency.conditions import Conditions
from search.latency.fields import Featurizer, Form, folded, form_key, forms_of
from search.latency.form_model import FormModel
from search.latency.mlp import HIDDEN, Ensemble, Pairs, fit_ensemble, one_thread
from search.latency.table import BlockKey, LatencyTable, describe
from search.latency.widening import widening_pairs
from search.spaces.block import BlockSpec
from search.torch_or_stub import torch
from targets.errors import UsageError
from targets.extras import require

Floats = NDArray[np.float64]
COVERAGE = 0.9
FOLDS = 5
MEMBERS = 3 * FOLDS
_USUAL_NOISE = 0.02
_LEAST_JUDGED = 30


@dataclass(frozen=True)
class BlockPrediction:
    """Latencies of N blocks, in their order.

    Attributes:
        latency_us: Best guess, microseconds, (N,).
        low_us: Lower end of the interval, (N,).
        high_us: Upper end of the interval, (N,).
        coverage: Share of blocks the interval is meant to hold.
    """

    latency_us: Floats
    low_us: Floats
    high_us: Floats
    coverage: float


@dataclass(frozen=True)
class BlockPredictor:
    """A fitted predictor.

    Attributes:
        conditions: What its latencies hold for.
        forms: What it knows about each form, by kind, number of inputs and number of outputs.
        features: Makes the networks' features; its forms are in the order of ``forms``.
        ensemble: The networks.
        quantiles: Per kind, half the width of the interval in units of the noise and the members' spread; ``""`` is for
            all kinds.
        noise: Relative standard deviation of a measured block.
        report: How good it is on blocks it did not see.
        held_out: Those blocks; empty in a predictor that was loaded.
    """

    conditions: Conditions
    forms: Mapping[tuple[str, int, int], FormModel]
    features: Featurizer
    ensemble: Ensemble
    quantiles: Mapping[str, float]
    noise: float
    report: BlockReport
    held_out: tuple[HeldOutBlock, ...] = field(default=(), repr=False)

    @classmethod
    def fit(
        cls,
        table: LatencyTable,
        *,
        seed: int = 0,
        members: int = MEMBERS,
        epochs: int | None = None,
        hidden: int | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> BlockPredictor:
        """Fit to the medians of a table's rows.

        Args:
            table: The measured blocks.
            seed: Of everything random; equal seeds give equal predictors.
            members: Networks, at least two; the folds are as many, at most five.
            epochs: See :func:`search.latency.mlp.fit_ensemble`.
            hidden: Width of the networks' hidden layers; 64 by default, less for a small file.
            progress: Called with the share done, 0 to 1.

        Raises:
            UsageError: If the table has too few rows.
            MissingExtra: Without the ``predictor`` extra.
        """
        require("torch", "predictor")
        if len(table.rows) < 10 or members < 2:
            raise UsageError(
                f"cannot fit a predictor to {len(table.rows)} blocks with {members} networks",
                "Measure ten blocks or more (inas-deploy profile) and take two networks or more.",
            )
        return _Fit(table, seed, members).predictor(epochs, hidden or HIDDEN, progress)

    @property
    def coverage(self) -> float:
        """Share of blocks the interval is meant to hold."""
        return COVERAGE

    def refusal(self, spec: BlockSpec) -> str:
        """Why the block's latency is not known, ``""`` where it is.

        A block is refused whose kind, number of inputs or outputs, names of settings, heights and widths, kernel,
        stride or flags were never measured, or that has over 10 % more or fewer channels somewhere than any measured.
        """
        known = self.forms.get(form_key(spec))
        if known is None:
            kinds = {kind for kind, _, _ in self.forms}
            if spec.kind not in kinds:
                return f"blocks of the kind {spec.kind} were not measured"
            return f"no {spec.kind} with {len(spec.inputs)} inputs and {len(spec.outputs)} outputs was measured"
        unknown = [name for name, _ in folded(spec).settings if name not in known.form.settings]
        if unknown:
            return f"no {spec.kind} with the setting {unknown[0]} was measured"
        return known.refusal(known.form.fields(spec))

    def predict_blocks(self, specs: Sequence[BlockSpec]) -> BlockPrediction:
        """Latencies of blocks; equal keys are computed once.

        Raises:
            UsageError: If one of them was refused, naming the first and the number.
        """
        keys: dict[BlockKey, int] = {}
        places = np.array([keys.setdefault(spec.key, len(keys)) for spec in specs], dtype=np.intp)
        distinct = [BlockSpec("", *key, 0, 0) for key in keys]
        refused = [(spec, why) for spec in distinct if (why := self.refusal(spec))]
        if refused:
            spec, why = refused[0]
            raise UsageError(
                f"the latency predictor cannot know {len(refused)} of {len(distinct)} different blocks, "
                f"first {describe(spec.key)}: {why}",
                "Measure blocks like these (inas-deploy profile), or take a predictor made for this space and size.",
            )
        logs = np.zeros((self.ensemble.members, len(distinct)))
        rows: dict[tuple[str, int, int], list[int]] = {}
        for at, spec in enumerate(distinct):
            rows.setdefault(form_key(spec), []).append(at)
        for key, indices in rows.items():
            fields = np.array([self.forms[key].form.fields(distinct[at]) for at in indices], dtype=np.float64)
            with torch.no_grad(), one_thread():
                logs[:, indices] = self.log_us(key, torch.as_tensor(fields)).numpy()
        half = self._half_width([spec.kind for spec in distinct], logs)
        mean = logs.mean(axis=0)
        latency, low, high = (np.exp(values)[places] for values in (mean, mean - half, mean + half))
        return BlockPrediction(latency, low, high, self.coverage)

    def log_us(self, form: tuple[str, int, int], fields: torch.Tensor, *, smooth: bool = False) -> torch.Tensor:
        """Logarithm of the latency in microseconds by each member, differentiable in the fields; nothing is refused.

        Args:
            form: A key of :attr:`forms`.
            fields: (N, C), in the order of the form's columns; need not be whole numbers.
            smooth: The trend through the stairs, see :class:`search.latency.fields.Featurizer`.

        Returns:
            (members, N).
        """
        known = self.forms[form]
        features = self.features(list(self.forms).index(form), fields, smooth=smooth)
        return known.base(fields).log() + self.ensemble.log_ratio(features)

    def to_parts(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """JSON data and arrays of the predictor, to be stored."""
        from search.latency.block_parts import to_parts

        return to_parts(self)

    @classmethod
    def from_parts(cls, values: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> BlockPredictor:
        """Put together what :meth:`to_parts` gave.

        Raises:
            InvalidModel: If they do not fit together.
        """
        from search.latency.block_parts import from_parts

        return from_parts(values, tensors)

    def _half_width(self, kinds: Sequence[str], logs: Floats) -> Floats:
        factors = np.array([self.quantiles.get(kind, self.quantiles[""]) for kind in kinds])
        half: Floats = factors * (self.noise + logs.std(axis=0))
        return half


class _Fit:
    """One fit: rows of all forms one after the other."""

    def __init__(self, table: LatencyTable, seed: int, members: int) -> None:
        self.table, self.seed, self.members = table, seed, members
        self.folds = min(FOLDS, members)
        self.rng = np.random.default_rng(seed)
        forms = forms_of(row.spec for row in table.rows.values())
        self.rows = sorted(table.rows.values(), key=lambda row: (form_key(row.spec), row.key))
        self.keys = list(forms)
        self.form = np.array([self.keys.index(form_key(row.spec)) for row in self.rows])
        self.latency_us = np.array([row.p50_us for row in self.rows])
        floor = table.header.noise_floor
        self.noise = max(0.003, _USUAL_NOISE if floor is None else floor)
        counts = np.array([row.count for row in self.rows])
        sure = 1 / (_USUAL_NOISE**2 + self.noise**2 / counts)
        self.weights = sure / sure.mean() * np.clip(self.latency_us / 20, 0.1, 1)
        self.fields: dict[Form, Floats] = {
            forms[key]: np.array([forms[key].fields(self.rows[at].spec) for at in self.of(key)], dtype=np.float64)
            for key in self.keys
        }
        self.fold = self._folds()

    def of(self, key: tuple[str, int, int]) -> NDArray[np.intp]:
        return np.flatnonzero(self.form == self.keys.index(key))

    def _folds(self) -> NDArray[np.intp]:
        """Folds of about equal size within each form, small forms starting at different ones."""
        fold = np.zeros(len(self.rows), dtype=np.intp)
        for number, key in enumerate(self.keys):
            at = self.of(key)
            fold[self.rng.permutation(at)] = (np.arange(len(at)) + number) % self.folds
        return fold

    def predictor(self, epochs: int | None, hidden: int, progress: Callable[[float], None] | None) -> BlockPredictor:
        features = Featurizer.of(self.fields)
        models: dict[tuple[str, int, int], FormModel] = {}
        for key, (form, fields) in zip(self.keys, self.fields.items(), strict=True):
            at = self.of(key)
            fold = np.stack([self.fold[at] == member % self.folds for member in range(self.members)])
            models[key] = FormModel.fit(form, fields, self.latency_us[at], self.weights[at], ~fold)
        x, base = self._inputs(features, models, list(self.fields.values()))
        ensemble = fit_ensemble(
            x,
            self.latency_us,
            members=self.members,
            epochs=epochs,
            hidden=hidden,
            seed=self.seed,
            base=base,
            weights=self.weights,
            train_rows=[np.flatnonzero(self.fold != member % self.folds) for member in range(self.members)],
            pairs=self._pairs(features, models),
            progress=progress,
        )
        logs = np.log(ensemble.predict(x, base)[1])
        return self._judged(features, models, ensemble, logs)

    def _inputs(
        self, features: Featurizer, models: Mapping[tuple[str, int, int], FormModel], fields: Sequence[Floats]
    ) -> tuple[Floats, Floats]:
        """Features, (N, F), and bases, (members, N), of fields by form."""
        rows = [torch.as_tensor(values) for values in fields]
        x = torch.cat([features(number, values) for number, values in enumerate(rows)])
        bases = [model.base(values) for model, values in zip(models.values(), rows, strict=True)]
        return x.numpy(), torch.cat(bases, dim=1).numpy()

    def _pairs(self, features: Featurizer, models: Mapping[tuple[str, int, int], FormModel]) -> Pairs:
        found = [
            widening_pairs(form, fields, self.latency_us[self.of(key)], self.noise, self.rng)
            for key, (form, fields) in zip(self.keys, self.fields.items(), strict=True)
        ]
        narrow, low = self._inputs(features, models, [pair[0] for pair in found])
        wide, high = self._inputs(features, models, [pair[1] for pair in found])
        return Pairs(narrow, wide, np.log(high / low))

    def _judged(
        self,
        features: Featurizer,
        models: Mapping[tuple[str, int, int], FormModel],
        ensemble: Ensemble,
        logs: Floats,
    ) -> BlockPredictor:
        """Judge each row by the members that did not see it, and take the intervals from that."""
        unseen = np.stack([self.fold == member % self.folds for member in range(self.members)])
        guess = (logs * unseen).sum(axis=0) / unseen.sum(axis=0)
        unit = self.noise + logs.std(axis=0)
        sizes = np.bincount(self.form)[self.form]
        judged = np.flatnonzero(sizes > 1)
        scores = np.abs(np.log(self.latency_us) - guess) / unit
        quantiles = {"": _quantile(scores[judged])}
        kinds = np.array([row.kind for row in self.rows])
        for kind in sorted(set(kinds[judged].tolist())):
            mine = judged[kinds[judged] == kind]
            own = _quantile(scores[mine])
            quantiles[kind] = own if len(mine) >= _LEAST_JUDGED else max(own, quantiles[""])
        held_out = []
        for at in judged.tolist():
            half = quantiles.get(self.rows[at].kind, quantiles[""]) * unit[at]
            low, middle, high = (float(np.exp(guess[at] + part)) for part in (-half, 0, half))
            held_out.append(HeldOutBlock(self.rows[at].key, float(self.latency_us[at]), middle, low, high))
        header = self.table.header
        report = report_of(held_out, noise_floor=header.noise_floor, rows=len(self.rows))
        return BlockPredictor(
            header.conditions, models, features, ensemble, quantiles, self.noise, report, tuple(held_out)
        )


def _quantile(scores: Floats) -> float:
    """The conformal quantile: with n scores the ``ceil((n + 1) * coverage)``-th smallest (Vovk et al., 2005)."""
    if not len(scores):
        return 3.0
    rank = min(len(scores), math.ceil((len(scores) + 1) * COVERAGE))
    return float(np.sort(scores)[rank - 1])
