"""Is B slower than A? One of three answers, from alternating sessions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from targets.errors import UsageError
from targets.records import Comparison, Measurement, SessionRecord, Variant
from targets.statistics import (
    detectable_effect,
    headline_of,
    paired_effect,
    paired_permutation_p,
    pairs_for,
    session_headline_ms,
    smallest_sample,
)

Answer = Literal["slower", "faster", "same", "cannot tell"]

ALPHA = 0.01
MARGIN = 0.03
MIN_PAIRS = smallest_sample(ALPHA)
_MOST_PAIRS = 1000


def refuse_unlike(a: Variant, b: Variant, *, meant: Sequence[str] = ()) -> None:
    """Refuse to compare what differs in more than the caller set out to compare.

    Args:
        a: One variant.
        b: The other.
        meant: Settings the caller changed on purpose, for example ``("runtime",)``.

    Raises:
        UsageError: Naming every setting that differs and was not meant to.
    """
    pairs = {
        "device": (a.device, b.device),
        "stand-in": (a.stand_in, b.stand_in),
        "runtime": (a.settings.runtime, b.settings.runtime),
        "precision": (a.settings.precision.value, b.settings.precision.value),
        "accelerator": (a.settings.accelerator, b.settings.accelerator),
        "threads": (a.settings.threads, b.settings.threads),
        "mode": (a.settings.mode, b.settings.mode),
        "pinned cores": (a.settings.pinned_cores, b.settings.pinned_cores),
        "input shape": (_sizes(a), _sizes(b)),
    }
    if "runtime" not in meant:
        pairs["options"] = (str(a.settings.options), str(b.settings.options))
    unlike = [f"{name} {one} against {two}" for name, (one, two) in pairs.items() if one != two and name not in meant]
    if unlike:
        raise UsageError(
            f"A and B are unlike: {'; '.join(unlike)}", "Make them alike, or say that you mean it with --unlike."
        )


def _sizes(variant: Variant) -> str:
    """Input sizes and types, images as NCHW whatever the artifact's own layout."""
    words = []
    for spec in variant.artifact.inputs:
        shape = spec.shape
        if variant.artifact.layout == "NHWC" and len(shape) == 4:
            shape = (shape[0], shape[3], shape[1], shape[2])
        words.append(f"{'x'.join(map(str, shape))} {spec.dtype}")
    return ", ".join(words)


def compare(a: Measurement, b: Measurement, *, margin: float = MARGIN, alpha: float = ALPHA) -> Comparison:
    """Compare two variants that were measured in alternating sessions.

    The figure of a session is its headline (p10 where the runtime tells single inferences); a pair is the sessions
    of one round. The answer is *same* where the whole interval lies within the margin, *slower* or *faster* where the
    paired permutation test rejects at ``alpha`` and the effect is beyond the margin, else *cannot tell*.

    Args:
        a: The baseline.
        b: The candidate.
        margin: Relative difference that does not matter.
        alpha: Level of the test; the interval has confidence ``1 - alpha``.

    Raises:
        UsageError: If the two were not measured in the same rounds, or in too few of them.
    """
    differences = _log_ratios(a.sessions, b.sessions, smallest_sample(alpha))
    pairs = len(differences)
    effect, low, high = paired_effect(differences, alpha)
    p_value = paired_permutation_p(differences)
    spread = float(np.std(differences, ddof=1))
    limit = math.log1p(margin)
    answer: Answer = "cannot tell"
    if -limit <= low and high <= limit:
        answer = "same"
    elif p_value <= alpha and abs(effect) > limit:
        answer = "slower" if effect > 0 else "faster"
    more = _more_pairs(effect, spread, pairs, limit, alpha) if answer == "cannot tell" else 0
    detectable = math.expm1(detectable_effect(spread, pairs, alpha))
    difference, interval = math.expm1(effect), (math.expm1(low), math.expm1(high))
    return Comparison(
        a=a.variant.label,
        b=b.variant.label,
        answer=answer,
        effect=difference,
        effect_low=interval[0],
        effect_high=interval[1],
        confidence=1 - alpha,
        p_value=p_value,
        margin=margin,
        minimum_detectable_effect=detectable,
        pairs=pairs,
        more_pairs=more,
        sentence=_sentence(answer, difference, interval, margin, detectable, pairs, more),
    )


def _log_ratios(a: Sequence[SessionRecord], b: Sequence[SessionRecord], fewest: int) -> list[float]:
    if {s.index for s in a} != {s.index for s in b}:
        raise UsageError("A and B were not measured in the same rounds", "Measure them with: inas-deploy compare A B")
    if len(a) < fewest:
        raise UsageError(
            f"{len(a)} pairs of sessions cannot reach the test's level", f"Measure at least {fewest} (--pairs)."
        )
    headline = headline_of([*a, *b])
    first = {s.index: math.log(session_headline_ms(s, headline)) for s in a}
    second = {s.index: math.log(session_headline_ms(s, headline)) for s in b}
    return [second[index] - first[index] for index in sorted(first)]


def _more_pairs(effect: float, spread: float, pairs: int, limit: float, alpha: float) -> int | None:
    """Further pairs that would settle it one way or the other, if a sensible number would."""
    distance = abs(effect) if abs(effect) > limit else limit - abs(effect)
    more = pairs_for(max(distance, limit / 10), spread, alpha) - pairs
    return max(more, 2) if more <= _MOST_PAIRS else None


def _sentence(
    answer: Answer,
    effect: float,
    interval: tuple[float, float],
    margin: float,
    detectable: float,
    pairs: int,
    more: int | None,
) -> str:
    seen = f"interval {interval[0]:+.1%} to {interval[1]:+.1%}, {pairs} pairs"
    if answer == "same":
        return f"B is the same as A within {margin:.0%}: the difference is {effect:+.1%} ({seen})."
    if answer != "cannot tell":
        return f"B is {answer} than A by {abs(effect):.1%} ({seen})."
    wish = "no sensible number of sessions would settle it on this host"
    if more is not None:
        wish = f"needs {more} more pairs of sessions"
    return f"Cannot tell: the difference is {effect:+.1%} ({seen}; these would find {detectable:.1%}); {wish}."
