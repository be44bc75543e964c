"""A small regression core: an ensemble of multilayer perceptrons that predicts positive figures from features.

Five fully connected layers with ReLU between them, as RTSeg's latency model has (Li et al., AAAI 2023). What is learned
is the logarithm of the figure over a base, so that errors are relative and a good base leaves little to learn. All
members are trained side by side as one batched product, on one thread, so that equal seeds give equal results.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from search.torch_or_stub import torch
from targets.errors import UsageError
from targets.extras import require

Floats = NDArray[np.float64]
LAYERS = 5
HIDDEN = 64
"""Width of the hidden layers."""
BATCH = 256
_STEPS = 3000
_MOST_EPOCHS = 500
_RATE = 3e-3
_DECAY = 1e-4
_PAIR_WEIGHT = 5.0


@dataclass(frozen=True)
class Pairs:
    """Features between which the figure must not fall: a penalty in training, not a guarantee.

    Attributes:
        narrow: Features of the lesser of each pair, (P, F).
        wide: Features of the greater, (P, F).
        gain: Logarithm of the base's ratio, greater over lesser, (P,) or (members, P).
    """

    narrow: Floats
    wide: Floats
    gain: Floats


@dataclass(frozen=True)
class Ensemble:
    """A fitted ensemble.

    Attributes:
        weights: Per layer, (members, in, out).
        biases: Per layer, (members, 1, out).
        center: Subtracted from each feature, (F,).
        scale: Each feature is then multiplied with it, (F,); 0 for a feature that never varied.
        target: Offset and factor from the network's output to the logarithm, (2,).
    """

    weights: tuple[torch.Tensor, ...]
    biases: tuple[torch.Tensor, ...]
    center: torch.Tensor
    scale: torch.Tensor
    target: torch.Tensor

    @property
    def members(self) -> int:
        """Number of networks."""
        return int(self.weights[0].shape[0])

    @property
    def features(self) -> int:
        """Number of features."""
        return int(self.center.shape[0])

    def log_ratio(self, x: torch.Tensor) -> torch.Tensor:
        """Logarithm of figure over base by each member, differentiable in the features.

        Args:
            x: Features, (N, F), in double precision.

        Returns:
            (members, N).
        """
        standard = (x - self.center) * self.scale
        out = _forward(self.weights, self.biases, standard.expand(self.members, *standard.shape))
        return self.target[0] + self.target[1] * out

    def predict(self, x: ArrayLike, base: ArrayLike | None = None) -> tuple[Floats, Floats]:
        """Figures of N rows.

        Args:
            x: Features, (N, F).
            base: The base of each row as in the fit, (N,) or (members, N).

        Returns:
            Geometric mean over members, (N,), and each member's, (members, N).

        Raises:
            UsageError: If the number of features differs from the fit's.
        """
        rows = torch.as_tensor(np.asarray(x, dtype=np.float64))
        if rows.ndim != 2 or rows.shape[1] != self.features:
            raise UsageError(f"{tuple(rows.shape)} are no rows of {self.features} features", "Give (N, F) features.")
        with torch.no_grad(), one_thread():
            logs: Floats = self.log_ratio(rows).numpy()
        if base is not None:
            logs = logs + np.log(np.asarray(base, dtype=np.float64))
        return np.exp(logs.mean(axis=0)), np.exp(logs)

    def tensors(self) -> dict[str, torch.Tensor]:
        """All arrays by name, to be stored."""
        found = {"center": self.center, "scale": self.scale, "target": self.target}
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            found[f"layer{layer}.weight"], found[f"layer{layer}.bias"] = weight, bias
        return {name: tensor.contiguous() for name, tensor in found.items()}

    @classmethod
    def of(cls, tensors: Mapping[str, torch.Tensor]) -> Ensemble:
        """Put together what :meth:`tensors` gave.

        Raises:
            UsageError: If an array is missing, too many, or of a wrong shape.
        """
        names = {
            "center",
            "scale",
            "target",
            *(f"layer{n}.{what}" for n in range(LAYERS) for what in ("weight", "bias")),
        }
        if set(tensors) != names:
            raise UsageError("the arrays of the networks are not those of five layers", "Fit the predictor again.")
        weights = tuple(tensors[f"layer{n}.weight"] for n in range(LAYERS))
        biases = tuple(tensors[f"layer{n}.bias"] for n in range(LAYERS))
        made = cls(weights, biases, tensors["center"], tensors["scale"], tensors["target"])
        if not made._fits():
            raise UsageError("the arrays of the networks do not fit together", "Fit the predictor again.")
        return made

    def _fits(self) -> bool:
        if self.center.ndim != 1 or self.scale.shape != self.center.shape or self.target.shape != (2,):
            return False
        members, width = self.weights[0].shape[0], self.features
        for weight, bias in zip(self.weights, self.biases, strict=True):
            if weight.ndim != 3 or weight.shape[:2] != (members, width):
                return False
            width = weight.shape[2]
            if bias.shape != (members, 1, width):
                return False
        return members > 0 and width == 1


def fit_ensemble(
    x: ArrayLike,
    y: ArrayLike,
    *,
    members: int = 5,
    hidden: int = HIDDEN,
    epochs: int | None = None,
    seed: int = 0,
    loss: Literal["log", "mape"] = "log",
    base: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    train_rows: Sequence[NDArray[np.intp]] | None = None,
    validation: float = 0.1,
    pairs: Pairs | None = None,
    progress: Callable[[float], None] | None = None,
) -> Ensemble:
    """Fit an ensemble.

    Each member keeps the weights that did best on its own validation rows (early stopping): a seeded share of its rows,
    another for each member.

    Args:
        x: Features, (N, F).
        y: Positive figures, (N,).
        members: Networks, which differ in their first weights, the order of rows and their validation rows.
        hidden: Width of the four hidden layers.
        epochs: Passes over the rows; ``None`` chooses as many as make about 3000 steps.
        seed: Of everything random.
        loss: ``log``: mean absolute difference of logarithms. ``mape``: mean absolute relative error.
        base: Positive first guess, (N,), or one by each member, (members, N); ``None`` for 1.
        weights: Weight of each row, (N,); ``None`` for equal weights.
        train_rows: Rows each member may see, by index; ``None`` for all. What a member does not see here it can be
            judged on.
        validation: Share of the rows that are kept for early stopping; 0 takes the last weights.
        pairs: Where the figure must not fall.
        progress: Called with the share done, 0 to 1.

    Raises:
        UsageError: If shapes disagree, there are fewer than two rows, or a figure is not positive and finite.
    """
    require("torch", "predictor")
    rows, figures, first = _checked(x, y, base, members)
    target = np.log(figures) - np.log(first)
    seen = [np.arange(len(figures))] * members if train_rows is None else list(train_rows)
    if len(seen) != members or min(len(indices) for indices in seen) < 2:
        raise UsageError("each member needs at least two rows to learn from", "Give more rows.")
    with one_thread():
        run = _Run(rows, target, np.ones(len(figures)) if weights is None else np.asarray(weights, float), seed)
        run.start(members, hidden)
        run.pair(pairs)
        run.split(seen, validation)
        run.train(epochs, loss, progress)
    return run.ensemble()


class _Run:
    """One fit: single precision inside, double precision in the result."""

    def __init__(self, rows: Floats, target: Floats, weights: Floats, seed: int) -> None:
        spread = rows.std(axis=0)
        self.center = rows.mean(axis=0)
        self.scale = np.where(spread > 1e-9, 1 / np.maximum(spread, 1e-9), 0.0)
        self.x = self.standard(rows)
        self.offset, self.factor = float(np.median(target)), float(max(target.std(), 1e-3))
        self.t = torch.as_tensor((target - self.offset) / self.factor, dtype=torch.float32)  # (members, N)
        self.row_weights = torch.as_tensor(weights / weights.mean(), dtype=torch.float32)
        self.generator = torch.Generator().manual_seed(seed)
        self.stride = 1
        self.pairs: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    def standard(self, rows: Floats) -> torch.Tensor:
        return torch.as_tensor((rows - self.center) * self.scale, dtype=torch.float32)

    def start(self, members: int, hidden: int) -> None:
        widths = (self.x.shape[1], *(hidden,) * (LAYERS - 1), 1)
        self.weights, self.biases = [], []
        for fan_in, fan_out in pairwise(widths):
            bound = math.sqrt(6 / fan_in) if fan_out > 1 else math.sqrt(1 / fan_in)
            weight = torch.rand(members, fan_in, fan_out, generator=self.generator) * 2 * bound - bound
            self.weights.append(weight.requires_grad_())
            self.biases.append(torch.zeros(members, 1, fan_out, requires_grad=True))

    def pair(self, pairs: Pairs | None) -> None:
        if pairs is None or not len(pairs.narrow):
            return
        self.stride = max(1, len(pairs.narrow) // (4 * BATCH))  # of the pairs that are looked at in validation
        gain = torch.as_tensor(pairs.gain / self.factor, dtype=torch.float32).expand(len(self.t), -1)
        self.pairs = self.standard(pairs.narrow), self.standard(pairs.wide), gain

    def split(self, seen: Sequence[NDArray[np.intp]], validation: float) -> None:
        self.train_rows, self.held = [], []
        for indices in seen:
            order = torch.as_tensor(indices)[torch.randperm(len(indices), generator=self.generator)]
            held = round(validation * len(order)) if len(order) >= 20 else 0
            self.held.append(order[:held])
            self.train_rows.append(order[held:])

    def train(self, epochs: int | None, loss: str, progress: Callable[[float], None] | None) -> None:
        size = min(len(rows) for rows in self.train_rows)
        batches = max(1, round(size / BATCH))
        epochs = min(_MOST_EPOCHS, max(1, _STEPS // batches)) if epochs is None else epochs
        parameters = [*self.weights, *self.biases]
        optimizer = torch.optim.AdamW(parameters, lr=_RATE, weight_decay=_DECAY)
        steps = epochs * batches
        rise = 0.1 if steps > 20 else 0.35  # a rise of one step exactly divides by zero in there
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, _RATE, total_steps=steps, pct_start=rise, cycle_momentum=False
        )
        best = [math.inf] * len(self.t)
        kept = [parameter.detach().clone() for parameter in parameters]
        for epoch in range(epochs):
            orders = torch.stack(
                [rows[torch.randperm(len(rows), generator=self.generator)[:size]] for rows in self.train_rows]
            )
            for batch in orders.chunk(batches, dim=1):
                error = self._loss(batch, loss) + self._fall().sum()
                optimizer.zero_grad()
                error.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
            if epoch % max(1, epochs // 50) == 0 or epoch == epochs - 1:
                for member, figure in enumerate(self._validate(loss)):
                    if figure <= best[member]:
                        best[member] = figure
                        for copy, parameter in zip(kept, parameters, strict=True):
                            copy[member] = parameter.detach()[member]
                if progress is not None:
                    progress((epoch + 1) / epochs)
        self.weights, self.biases = kept[:LAYERS], kept[LAYERS:]

    def ensemble(self) -> Ensemble:
        return Ensemble(
            tuple(weight.double() for weight in self.weights),
            tuple(bias.double() for bias in self.biases),
            torch.as_tensor(self.center),
            torch.as_tensor(self.scale),
            torch.tensor([self.offset, self.factor], dtype=torch.float64),
        )

    def _loss(self, batch: torch.Tensor, loss: str) -> torch.Tensor:
        """Error of each member on its own rows, (members, B), weighted and averaged."""
        out = _forward(self.weights, self.biases, self.x[batch])
        error = self._error(out - self.t.gather(1, batch), loss)
        return (error * self.row_weights[batch]).mean(dim=1).sum()

    def _error(self, difference: torch.Tensor, loss: str) -> torch.Tensor:
        if loss == "mape":
            return torch.expm1((difference * self.factor).clamp(max=5)).abs() / self.factor
        return difference.abs()

    def _fall(self, chosen: torch.Tensor | None = None) -> torch.Tensor:
        """Penalty of each member on pairs whose figure falls, (members,); on a few drawn ones where none are given."""
        if self.pairs is None:
            return torch.zeros(len(self.t))
        narrow, wide, gain = self.pairs
        if chosen is None:
            chosen = torch.randint(len(narrow), (min(BATCH // 2, len(narrow)),), generator=self.generator)
        both = torch.cat([narrow[chosen], wide[chosen]]).expand(len(self.t), -1, -1)
        low, high = _forward(self.weights, self.biases, both).chunk(2, dim=1)
        return _PAIR_WEIGHT * torch.relu(low - high - gain[:, chosen]).mean(dim=1)

    def _validate(self, loss: str) -> list[float]:
        """Error of each member on its validation rows, and its falls; 0 without rows, so that the last weights win."""
        found = []
        with torch.no_grad():
            falls = self._fall(None if self.pairs is None else torch.arange(len(self.pairs[0]))[:: self.stride])
            for member, held in enumerate(self.held):
                weights = [weight[member : member + 1] for weight in self.weights]
                biases = [bias[member : member + 1] for bias in self.biases]
                out = _forward(weights, biases, self.x[held][None])[0]
                error = self._error(out - self.t[member][held], loss) * self.row_weights[held]
                found.append(float(error.mean() + falls[member]) if len(held) else 0.0)
        return found


def _forward(weights: Sequence[torch.Tensor], biases: Sequence[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Networks side by side: (members, N, F) to (members, N)."""
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        x = torch.baddbmm(bias, x, weight)
        if layer < LAYERS - 1:
            x = torch.relu(x)
    return x[..., 0]


def _checked(x: ArrayLike, y: ArrayLike, base: ArrayLike | None, members: int) -> tuple[Floats, Floats, Floats]:
    rows, figures = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    first = np.ones(1) if base is None else np.asarray(base, dtype=np.float64)
    if rows.ndim != 2 or figures.shape != rows.shape[:1] or len(figures) < 2 or members < 1:
        raise UsageError(f"cannot fit {rows.shape} features to {figures.shape} figures", "Give two rows or more.")
    if not (np.isfinite(rows).all() and np.isfinite(figures).all() and (figures > 0).all() and (first > 0).all()):
        raise UsageError("features must be finite, figures and bases positive and finite", "Leave out the other rows.")
    return rows, figures, np.broadcast_to(first, (members, len(figures)))


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread: equal results everywhere, and small products do not wait for other threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
