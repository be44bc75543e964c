"""Is a variant slower than an earlier run says? One of the three answers, by the strongest test the facts allow.

Sessions of two runs are not pairs: the host may have drifted in between. So an earlier run's *file* is measured again
in turns with the new one wherever it can be had. Where it cannot, each session is divided by that of a reference of
the same round, an unchanged file that both runs measured, and the two runs are compared by an exact rank-sum test.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

from targets.compare import ALPHA, Answer, compare
from targets.records import BenchRun, Comparison, Environment, Frozen, Measurement
from targets.statistics import headline_of, session_headline_ms
from targets.unpaired import unpaired_effect

Method = Literal["same file", "in turns", "by reference", "old figures"]

REFERENCE_ALLOWANCE = 0.05
"""Relative shift between two runs that dividing by a reference may leave: load does not slow all models equally."""
DRIFT_ALLOWANCE = 1.0
"""Relative shift between two runs that a machine may make alone; a factor of two."""
_HARDWARE = ("model", "soc", "machine", "board", "gpu", "cpu", "cpu_model", "processor", "compute_capability")


class Judged(Frozen):
    """The answer for one variant.

    Attributes:
        variant: Label in the new run.
        old: Label in the baseline.
        method: How it was found: ``same file`` (nothing to measure), ``in turns`` (the baseline's file was measured
            again), ``by reference`` or ``old figures`` (against the sessions of the baseline).
        answer: ``slower`` or ``faster`` than the baseline, ``same`` within ``limit``, or ``cannot tell``.
        effect: New over old minus 1; absent where nothing was measured or the runs cannot be compared.
        effect_low: Lower end of its interval; absent where unbounded.
        effect_high: Upper end of it.
        confidence: Confidence of the interval, 0 to 1.
        limit: Relative difference that had to be exceeded.
        comparison: The paired comparison behind ``in turns``.
        sentence: The answer for a person.
    """

    variant: str
    old: str
    method: Method
    answer: Answer
    effect: float | None = None
    effect_low: float | None = None
    effect_high: float | None = None
    confidence: float
    limit: float
    comparison: Comparison | None = None
    sentence: str


class GateResult(Frozen):
    """What a gate says of a run.

    Attributes:
        baseline: File of the baseline.
        run_id: Run that the baseline holds.
        alpha: Chance, over all variants together, of calling a variant slower or faster that is not.
        judged: One answer a variant that the baseline holds too.
        new: Labels of variants that the baseline does not hold.
        missing: Labels of the baseline's variants that were not measured.
    """

    baseline: str
    run_id: str
    alpha: float = ALPHA
    judged: tuple[Judged, ...]
    new: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def regressed(self) -> bool:
        """Whether a variant is shown to be slower."""
        return any(one.answer == "slower" for one in self.judged)


def judge_same_file(old: Measurement, new: Measurement, changed: Sequence[str], margin: float, alpha: float) -> Judged:
    """The file, device and settings are the baseline's own: the same by construction, unless a tool changed."""
    answer: Answer = "cannot tell" if changed else "same"
    sentence = "The very file of the baseline, with the same settings and tools."
    if changed:
        sentence = f"Cannot tell: the file is the baseline's own, but {_listed(changed)}; {_ANEW}."
    return _answer(old, new, "same file", answer, sentence, margin, alpha)


def judge_in_turns(old: Measurement, again: Measurement, new: Measurement, margin: float, alpha: float) -> Judged:
    """The baseline's file was measured again, in turns with the new one: the paired test.

    Args:
        old: From the baseline; its figures are not used.
        again: The baseline's file, measured in this run.
        new: The new file, measured in the same rounds.
        margin: Relative difference that does not matter.
        alpha: Level of the test.
    """
    found = compare(again, new, margin=margin, alpha=alpha)
    judged = _answer(old, new, "in turns", found.answer, found.sentence, margin, alpha)
    effect = {"effect": found.effect, "effect_low": found.effect_low, "effect_high": found.effect_high}
    sentence = found.sentence.replace("than A", "than the baseline").replace("as A", "as the baseline")
    return judged.model_copy(update={**effect, "comparison": found, "sentence": sentence.replace("B is", "It is")})


def judge_old_figures(
    old: Measurement,
    new: Measurement,
    references: tuple[Measurement, Measurement] | None,
    changed: Sequence[str],
    margin: float,
    alpha: float,
) -> Judged:
    """The baseline's file is gone: its sessions against those of this run, by the exact rank-sum test.

    *Slower* needs the whole interval beyond the margin and beyond what may shift between two runs by itself:
    :data:`REFERENCE_ALLOWANCE` with a reference, :data:`DRIFT_ALLOWANCE` without. Every measurement must be valid:
    other load slows a long inference more than a short one, which no division by a reference takes away.

    Args:
        old: From the baseline.
        new: From this run.
        references: An unchanged file, measured in the rounds of the baseline and in those of this run.
        changed: Tools that changed since, one phrase each; with any the answer is *cannot tell*.
        margin: Relative difference that does not matter.
        alpha: One minus the confidence of the interval.
    """
    method: Method = "by reference" if references else "old figures"
    limit = max(margin, REFERENCE_ALLOWANCE if references else DRIFT_ALLOWANCE)
    if changed:
        sentence = f"Cannot tell: since the baseline was measured, {_listed(changed)}; {_ANEW}."
        return _answer(old, new, method, "cannot tell", sentence, limit, alpha)
    weak = _weak(old, new, references)
    if weak:
        sentence = f"Cannot tell: figures of two runs need a quiet machine, and {_listed(weak)}; {_KEEP}."
        return _answer(old, new, method, "cannot tell", sentence, limit, alpha)
    before, after = _figures(old, new, references)
    answer, effect, low, high = decide(before, after, limit, alpha)
    if answer == "same" and references is None:
        answer = "cannot tell"  # a slower model and a faster machine look the same
    judged = _answer(old, new, method, answer, "", limit, alpha)
    known = {"effect": math.expm1(effect)}
    if math.isfinite(low):
        known |= {"effect_low": math.expm1(low), "effect_high": math.expm1(high)}
    judged = judged.model_copy(update=known)
    return judged.model_copy(update={"sentence": _sentence(judged, len(before), len(after))})


def decide(
    before: Sequence[float], after: Sequence[float], limit: float, alpha: float
) -> tuple[Answer, float, float, float]:
    """Answer from two unpaired samples: *slower* or *faster* only if the whole interval lies beyond the limit.

    Args:
        before: Logarithm of one figure a session.
        after: The same of the new run.
        limit: Relative difference that has to be exceeded.
        alpha: One minus the confidence of the interval.

    Returns:
        The answer; effect and ends of its interval, as logarithms.
    """
    effect, low, high = unpaired_effect(before, after, alpha)
    reach = math.log1p(limit)
    if low > reach or high < -reach:
        return ("slower" if low > reach else "faster"), effect, low, high
    return ("same" if -reach <= low and high <= reach else "cannot tell"), effect, low, high


_KEEP = "keep the baseline's file (--save-baseline), so that both are measured in turns"
_ANEW = "measure a new baseline with these tools (--save-baseline)"


def _answer(
    old: Measurement, new: Measurement, method: Method, answer: Answer, sentence: str, limit: float, alpha: float
) -> Judged:
    return Judged(
        variant=new.variant.label,
        old=old.variant.label,
        method=method,
        answer=answer,
        confidence=1 - alpha,
        limit=limit,
        sentence=sentence,
    )


def _weak(old: Measurement, new: Measurement, references: tuple[Measurement, Measurement] | None) -> list[str]:
    """Which of the measurements are weak and why, one phrase each."""
    named = [("the baseline", old), ("this run", new)]
    if references is not None:
        named += [("the reference in the baseline", references[0]), ("the reference in this run", references[1])]
    return [f"{name} is weak ({m.verdict.reasons[0]})" for name, m in named if m.verdict.status == "weak"]


def _figures(
    old: Measurement, new: Measurement, references: tuple[Measurement, Measurement] | None
) -> tuple[list[float], list[float]]:
    """Logarithm of each session's headline, divided by the reference's of the same round where there is one."""
    headline = headline_of([s for m in (old, new, *(references or ())) for s in m.sessions])

    def logs(measurement: Measurement) -> dict[int, float]:
        return {s.index: math.log(session_headline_ms(s, headline)) for s in measurement.sessions}

    if references is None:
        return list(logs(old).values()), list(logs(new).values())
    found = []
    for measurement, reference in zip((old, new), references, strict=True):
        values, base = logs(measurement), logs(reference)
        found.append([values[index] - base[index] for index in sorted(values.keys() & base.keys())])
    return found[0], found[1]


def _sentence(judged: Judged, before: int, after: int) -> str:
    how = "each divided by a reference" if judged.method == "by reference" else "without a reference"
    seen = "no interval: too few sessions"
    if judged.effect_low is not None and judged.effect_high is not None:
        seen = f"interval {judged.effect_low:+.1%} to {judged.effect_high:+.1%}"
    seen = f"{seen}; {before} old and {after} new sessions, {how}"
    effect = judged.effect or 0.0
    if judged.answer == "same":
        return f"It is the same as the baseline within {judged.limit:.0%}: the difference is {effect:+.1%} ({seen})."
    if judged.answer != "cannot tell":
        return f"It is {judged.answer} than the baseline by {abs(effect):.1%} ({seen})."
    drift = f"two runs may differ by {judged.limit:.0%} with nothing changed"
    return f"Cannot tell: the difference is {effect:+.1%} ({seen}), and {drift}; {_KEEP}."


def other_machine(old: Measurement, before: Environment, new: Measurement, now: Environment) -> list[str]:
    """In what the two were measured on other hardware, one phrase each.

    Args:
        old: From the baseline.
        before: The baseline's environment; it tells of the device only where that was the host itself.
        new: From this run.
        now: This run's environment.
    """
    return _differing(_hardware(old, before), _hardware(new, now), "{key} {old} then, {new} now")


def changed_tools(old: Measurement, before: Environment, new: Measurement, now: Environment) -> list[str]:
    """Tools, drivers and systems that changed between the two, one phrase each (arguments as above)."""
    return _differing(_software(old, before), _software(new, now), "{key} went from {old} to {new}")


def _hardware(measurement: Measurement, environment: Environment) -> dict[str, str]:
    told = _merged(s.device for s in measurement.sessions)
    if not told:
        return {"processor": environment.cpu_model, "cores": str(environment.cores)}
    return {key: told[key] for key in _HARDWARE if key in told}


def _software(measurement: Measurement, environment: Environment) -> dict[str, str]:
    told = _merged(s.device for s in measurement.sessions)
    system = {key: value for key, value in told.items() if key not in _HARDWARE} or {"system": environment.os}
    return {**system, **_merged(s.versions for s in measurement.sessions)}


def _merged(records: Iterable[dict[str, str]]) -> dict[str, str]:
    found: dict[str, dict[str, None]] = {}
    for record in records:
        for key, value in record.items():
            found.setdefault(key, {})[value] = None
    return {key: " or ".join(sorted(values)) for key, values in found.items()}


def _differing(old: dict[str, str], new: dict[str, str], phrase: str) -> list[str]:
    keys = sorted(old.keys() | new.keys())
    pairs = [(key, old.get(key, "not told"), new.get(key, "not told")) for key in keys]
    return [phrase.format(key=key, old=one, new=two) for key, one, two in pairs if one != two]


def _listed(phrases: Sequence[str]) -> str:
    return "; ".join(phrases)


def measurement_of(run: BenchRun, key: str) -> Measurement:
    """The measurement of a variant in a run.

    Raises:
        KeyError: If it was not measured.
    """
    return {m.variant.key: m for m in run.measurements}[key]
