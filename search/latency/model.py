"""The protocol that both searches use: anything that tells the latency of architectures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from search.latency.conditions import Conditions

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Prediction:
    """Latencies of N architectures, in their order.

    Attributes:
        latency_ms: Best guess of the whole network's p10 over inferences, milliseconds, (N,).
        low_ms: Lower end of the interval, (N,).
        high_ms: Upper end of the interval, (N,).
        coverage: Share of architectures whose measured latency the interval is meant to hold; 0 where the model has no
            intervals and both ends are the guess.
    """

    latency_ms: Floats
    low_ms: Floats
    high_ms: Floats
    coverage: float

    @classmethod
    def exact(cls, latency_ms: Floats) -> Prediction:
        """A prediction without an interval."""
        return cls(latency_ms, latency_ms, latency_ms, 0.0)


class LatencyModel(Protocol):
    """A table, a predictor, a line over MACs, or a device itself."""

    @property
    def name(self) -> str:
        """What kind of model it is, for tables: ``predictor``, ``table``, ``macs``, ``device``."""

    @property
    def conditions(self) -> Conditions:
        """What its latencies hold for."""

    def predict(self, archs: Sequence[Any]) -> Prediction:
        """Latencies of architectures.

        Args:
            archs: Architectures of the space in :attr:`conditions`, or a population of them
                (:class:`search.latency.population.Population`).

        Raises:
            UsageError: If one of them lies outside of what the model knows; never a silent guess.
            KitError: If a device is asked and fails.
        """
