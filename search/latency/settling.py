"""When a network was timed often enough, and what its sessions say together.

Other load, heat and clock ramps make a session slower and never faster, and on a shared host they can last for longer
than several sessions. So the fastest sessions count, once two of them agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

AGREEMENT = 0.01
"""Relative difference up to which two sessions agree."""
FEWEST, MOST = 2, 8
"""Sessions of one network, at least and at most."""


def settled(session_ms: Sequence[float], *, most: int = MOST) -> bool:
    """Whether further sessions are not needed: the two fastest agree, or there are as many as are ever taken.

    Args:
        session_ms: One figure a session, any unit.
        most: Sessions at most.
    """
    if len(session_ms) < FEWEST:
        return len(session_ms) >= most
    first, second = sorted(session_ms)[:2]
    return len(session_ms) >= most or second <= first * (1 + AGREEMENT)


def undisturbed_ms(session_ms: Sequence[float]) -> float:
    """Latency without what only ever slows it: the mean of the two fastest sessions.

    Args:
        session_ms: One figure a session, any unit; at least one.
    """
    return float(np.mean(sorted(session_ms)[:2]))


def disagreement(networks: Iterable[Sequence[float]]) -> float | None:
    """How far :func:`undisturbed_ms` may be off: half of the two fastest sessions' relative difference, pooled.

    Args:
        networks: Sessions of each network; those with one session say nothing.

    Returns:
        Root mean square over networks, or ``None`` where no network has two sessions.
    """
    fastest = [sorted(sessions)[:2] for sessions in networks if len(sessions) > 1]
    if not fastest:
        return None
    halves = [np.log(second / first) / 2 for first, second in fastest]
    return float(np.sqrt(np.mean(np.square(halves))))
