"""The gate: a run against a baseline, the result that an earlier ``bench`` wrote down.

``--save-baseline FILE`` writes the result as JSON and keeps the measured models beside it, in ``FILE`` with the ending
``.models``. ``--baseline FILE`` measures those models again, in turns with the new ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from inas_deploy.models import artifact_for, resolve_model
from targets.against_baseline import (
    GateResult,
    Judged,
    changed_tools,
    judge_in_turns,
    judge_old_figures,
    judge_same_file,
    measurement_of,
    other_machine,
)
from targets.compare import ALPHA, MARGIN, refuse_unlike
from targets.errors import KitError, UsageError, printable
from targets.files import sha256_of, write_atomic
from targets.plan import make_variant
from targets.records import Artifact, BenchRun, Measurement, Variant
from targets.statistics import smallest_sample

MAX_BASELINE_BYTES = 512 * 1024 * 1024
SESSIONS = 10
"""Sessions a variant in a gated run, unless the person says otherwise or several variants need more."""
_ROLES = ("baseline", "reference")
_KEPT = re.compile(r"[0-9a-f]{64}\.(?:onnx|tflite)")


@dataclass(frozen=True)
class Baseline:
    """A result to compare with.

    Attributes:
        path: Its file.
        run: What the file holds.
        measurements: Those of variants that were measured for their own sake, not for another gate.
    """

    path: Path
    run: BenchRun
    measurements: tuple[Measurement, ...]


@dataclass(frozen=True)
class Match:
    """A variant that the baseline holds too.

    Attributes:
        new: The variant of this run.
        old: The baseline's measurement.
        again: The baseline's file as a variant of this run; ``None`` where it is not to be had, or is the same file.
        reference: Without the baseline's file: another one that both runs measure; its old measurement and the variant.
    """

    new: Variant
    old: Measurement
    again: Variant | None = None
    reference: tuple[Measurement, Variant] | None = None

    @property
    def same_file(self) -> bool:
        """Whether the new file is the baseline's, byte for byte."""
        return self.new.artifact.sha256 == self.old.variant.artifact.sha256


@dataclass(frozen=True)
class Gate:
    """What to measure beside a run's own variants, and how to judge the run then.

    Attributes:
        baseline: The result to compare with.
        matches: Variants that both hold.
        new: Labels of variants that the baseline does not hold.
        missing: Labels of the baseline's variants that are not measured.
        margin: Relative difference that does not matter.
    """

    baseline: Baseline
    matches: tuple[Match, ...]
    new: tuple[str, ...]
    missing: tuple[str, ...]
    margin: float = MARGIN

    @property
    def extra(self) -> list[Variant]:
        """Variants to measure in turns with the run's own: the baseline's files and references."""
        wanted = [v for m in self.matches for v in (m.again, m.reference and m.reference[1]) if v is not None]
        own = {match.new.key for match in self.matches}
        return [v for v in {v.key: v for v in wanted}.values() if v.key not in own]

    @property
    def alpha(self) -> float:
        """Level of each variant's test, so that all together keep :data:`targets.compare.ALPHA`."""
        return ALPHA / max(1, sum(not match.same_file for match in self.matches))

    def sessions(self, asked: int | None, untested: int = 5) -> int:
        """Sessions a variant.

        Args:
            asked: What the person asked for.
            untested: Sessions where every model is the baseline's own, so that nothing is tested.

        Raises:
            UsageError: If so few cannot reach the level of the test.
        """
        least = smallest_sample(self.alpha) if any(m.again for m in self.matches) else 1
        if asked is not None and asked < least:
            variants = sum(not match.same_file for match in self.matches)
            of = f"{variants} variants" if variants > 1 else "a variant"
            raise UsageError(
                f"{asked} sessions cannot show {of} to be slower",
                f"Take at least {least} (--sessions) or leave it out.",
            )
        return asked or (untested if all(m.same_file for m in self.matches) else max(SESSIONS, least))

    def judge(self, run: BenchRun) -> GateResult:
        """Answer for every variant.

        Args:
            run: Holds the run's own variants and :attr:`extra`.

        Raises:
            UsageError: If figures would have to be compared that come from different hardware.
        """
        path = self.baseline.path
        judged = tuple(self._judged(match, run) for match in self.matches)
        return GateResult(
            baseline=str(path), run_id=self.baseline.run.run_id, judged=judged, new=self.new, missing=self.missing
        )

    def _judged(self, match: Match, run: BenchRun) -> Judged:
        new, old, then = measurement_of(run, match.new.key), match.old, self.baseline.run.environment
        if match.again is not None:
            return judge_in_turns(old, measurement_of(run, match.again.key), new, self.margin, self.alpha)
        changed = changed_tools(old, then, new, run.environment)
        if match.same_file:
            return judge_same_file(old, new, changed, self.margin, self.alpha)
        moved = other_machine(old, then, new, run.environment)
        if moved:
            raise UsageError(
                f"{self.baseline.path}: {new.variant.label} was measured on another machine: "
                f"{printable('; '.join(moved), 500)}",
                "Measure a baseline here, or keep its files beside it (--save-baseline), to be measured again.",
            )
        reference = match.reference
        pair = (reference[0], measurement_of(run, reference[1].key)) if reference else None
        return judge_old_figures(old, new, pair, changed, self.margin, self.alpha)


def load_baseline(path: Path) -> Baseline:
    """Read a baseline: what ``bench --save-baseline`` or ``bench --json`` wrote.

    Raises:
        UsageError: If there is no such file, or it holds something else.
    """
    again = "Write one with: inas-deploy bench --save-baseline FILE"
    if not path.is_file():
        raise UsageError(f"there is no baseline {path}", again)
    try:
        if path.stat().st_size > MAX_BASELINE_BYTES:
            raise UsageError(f"baseline {path} is larger than {MAX_BASELINE_BYTES} bytes", again)
        run = BenchRun.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(f"baseline {path} cannot be read: {error.strerror}", "Check its permissions.") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = printable(".".join(str(part) for part in first["loc"]))
        raise UsageError(
            f"{path} is not a bench result ({where or 'file'}: {printable(first['msg'], 200)})", again
        ) from error
    own = tuple(m for m in run.measurements if not _for_a_gate(m.variant))
    if not own:
        raise UsageError(f"baseline {path} holds no measurement", again)
    return Baseline(path, run, own)


def write_baseline(path: Path, run: BenchRun) -> None:
    """Write a run down as a baseline, with the measured models beside it.

    A model whose weights lie in further files is not kept.

    Args:
        path: JSON file to make or replace; the models go into a folder beside it that ends in ``.models``.
        run: What was measured; what was only measured for a gate is left out.

    Raises:
        UsageError: If a file cannot be written.
    """
    own = tuple(m for m in run.measurements if not _for_a_gate(m.variant))
    folder = _models(path)
    try:
        folder.mkdir(exist_ok=True)
        wanted = {_kept_name(m.variant.artifact): m.variant.artifact for m in own}
        for stale in folder.iterdir():
            if _KEPT.fullmatch(stale.name) and stale.name not in wanted:
                stale.unlink()
        for name, artifact in wanted.items():
            there = folder / name
            if sha256_of(Path(artifact.path)) == artifact.sha256 and not _is(there, artifact):
                write_atomic(there, Path(artifact.path).read_bytes())
    except OSError as error:
        raise UsageError(f"cannot keep models in {folder}: {error.strerror}", "Name another place.") from error
    write_atomic(path, run.model_copy(update={"measurements": own}).model_dump_json(indent=1).encode())


def open_gate(path: Path, variants: Sequence[Variant], margin: float = MARGIN) -> Gate:
    """Find out what of a run the baseline can judge, and what that takes.

    Args:
        path: File of the baseline.
        variants: What the run will measure.
        margin: Relative difference that does not matter.

    Raises:
        UsageError: If the baseline cannot be read, holds none of the variants, or holds one with other settings.
    """
    baseline = load_baseline(path)
    pairs = _pairs(baseline, variants)
    if not pairs:
        held = ", ".join(printable(m.variant.label) for m in baseline.measurements[:5])
        raise UsageError(
            f"{path} holds nothing that this run measures: it holds {held}, "
            f"this run {', '.join(v.label for v in variants[:5])}",
            "Measure the same model name, device, runtime and precision.",
        )
    found = {id(old) for _, old in pairs}
    return Gate(
        baseline=baseline,
        matches=tuple(_match(baseline, new, old, variants) for new, old in pairs),
        new=tuple(v.label for v in variants if all(v is not new for new, _ in pairs)),
        missing=tuple(m.variant.label for m in baseline.measurements if id(m) not in found),
        margin=margin,
    )


def again_of(baseline: Baseline, old: Measurement, new: Variant, role: str = "baseline") -> Variant | None:
    """The baseline's file as a variant to measure on the device and with the settings of the new one, if it is here."""
    found = _located(baseline, old.variant.artifact)
    if found is None:
        return None
    return make_variant(
        old.variant.model,
        old.variant.artifact.model_copy(update={"path": str(found)}),
        new.settings,
        device=new.device,
        stand_in=new.stand_in,
        model_note=old.variant.model_note,
        role=role,
    )


def match_one(baseline: Baseline, new: Variant) -> Measurement:
    """The baseline's measurement to hold a variant against.

    Raises:
        UsageError: If there is none, or it has other settings.
    """
    pairs = _pairs(baseline, [new])
    if not pairs:
        raise UsageError(f"{baseline.path} holds nothing like {new.label}", "Name the model that it was made with.")
    return pairs[0][1]


def _pairs(baseline: Baseline, variants: Sequence[Variant]) -> list[tuple[Variant, Measurement]]:
    """By model, device, runtime and precision; a model that is the only one on both sides may have another name."""
    renamed = len({m.variant.model for m in baseline.measurements}) == 1 == len({v.model for v in variants})
    pairs = []
    for new in variants:
        for old in baseline.measurements:
            if _place(old.variant) == _place(new) and (old.variant.model == new.model or renamed):
                try:
                    refuse_unlike(old.variant, new)
                except UsageError as error:
                    what = error.what.replace("A and B are", f"{new.label} and the baseline's are")
                    raise UsageError(
                        f"{baseline.path}: {printable(what, 500)}", "Measure a baseline with these settings."
                    ) from error
                pairs.append((new, old))
                break
    return pairs


def _place(variant: Variant) -> tuple[str, ...]:
    settings = variant.settings
    return variant.device, settings.runtime, settings.precision.value, settings.accelerator, settings.mode


def _match(baseline: Baseline, new: Variant, old: Measurement, variants: Sequence[Variant]) -> Match:
    match = Match(new, old)
    if match.same_file:
        return match
    again = again_of(baseline, old, new)
    return Match(new, old, again, None if again else next(_references(baseline, new, variants), None))


def _references(baseline: Baseline, new: Variant, variants: Sequence[Variant]) -> Iterator[tuple[Measurement, Variant]]:
    """Files that both runs measure on this device with these settings; those measured anyway first."""
    alike = [
        m for m in baseline.measurements if _place(m.variant) == _place(new) and m.variant.settings == new.settings
    ]
    for old in alike:
        for variant in variants:
            same = variant.artifact.sha256 == old.variant.artifact.sha256
            if same and _place(variant) == _place(new) and variant.settings == new.settings:
                yield old, variant
    for old in alike:
        again = again_of(baseline, old, new, role="reference")
        if again is not None:
            yield old, again


def _located(baseline: Baseline, artifact: Artifact) -> Path | None:
    places = (_models(baseline.path) / _kept_name(artifact), Path(artifact.path))
    return next((place for place in places if _is(place, artifact)), None)


def _is(path: Path, artifact: Artifact) -> bool:
    """Whether a file is this artifact, weights in files beside it included."""
    try:
        if not path.is_file():
            return False
        if sha256_of(path) == artifact.sha256:
            return True
        return artifact_for(resolve_model(str(path)), (artifact.format,)).sha256 == artifact.sha256
    except (OSError, ValueError, KitError):  # a name no file can have, a file that is no model
        return False


def _models(path: Path) -> Path:
    return path.with_suffix(".models")


def _kept_name(artifact: Artifact) -> str:
    return f"{artifact.sha256}.{artifact.format}"


def _for_a_gate(variant: Variant) -> bool:
    return variant.label.startswith(tuple(f"{role}: {variant.model} @" for role in _ROLES))
