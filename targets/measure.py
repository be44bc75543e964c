"""Measure a plan: sessions interleaved, each saved as it ends, profiles after them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from targets.environment import capture_environment
from targets.errors import KitError, UsageError
from targets.jobs import Job
from targets.opening import Target
from targets.plan import BenchPlan
from targets.records import BenchRun, Measurement, OpProfile, SessionRecord, Variant
from targets.stand_ins import check_session, refuse_mixed
from targets.statistics import latency_stats
from targets.store import ResultStore, StoredRun
from targets.verdict import judge


@dataclass(frozen=True)
class Progress:
    """What just happened, for whoever shows it.

    Attributes:
        step: ``resumed`` (found in the store), ``started``, ``session`` (saved) or ``profile`` (saved).
        done: Steps finished so far.
        total: Steps in all.
        variant: The variant in question.
        session: The session that was saved.
    """

    step: Literal["resumed", "started", "session", "profile"]
    done: int
    total: int
    variant: Variant
    session: SessionRecord | None = None


def _quiet(_: Progress) -> None:
    """Show nothing."""


def measure(
    plan: BenchPlan,
    store: ResultStore,
    targets: Mapping[str, Target],
    *,
    resume: bool = False,
    on_progress: Callable[[Progress], None] = _quiet,
) -> BenchRun:
    """Measure everything in a plan that the store does not hold yet.

    Args:
        plan: What to measure.
        store: Where every session goes as soon as it ends.
        targets: Where sessions run, by device name.
        resume: Go on with the newest unfinished run of an equal plan on this machine, if there is one.
        on_progress: Called after each step.

    Returns:
        The whole run, resumed sessions included.

    Raises:
        SessionFailed: If a session gave no result; what was measured before is in the store.
        KitError: If a model or a setting was refused. A profile that fails ends nothing: the measurement
            says why it is missing.
    """
    _check(plan.variants)
    environment = capture_environment()
    run = store.unfinished(plan, environment) if resume else None
    total = len(plan.variants) * (plan.sessions + plan.per_op)
    done = 0
    have = {v.key: {s.index for s in store.sessions(run.run_id, v.key)} if run else set() for v in plan.variants}
    for index, variant in plan.rounds():
        if index in have[variant.key]:
            done += 1
            on_progress(Progress("resumed", done, total, variant))
            continue
        on_progress(Progress("started", done, total, variant))
        job = Job(task="time", artifact=variant.artifact, settings=variant.settings, index=index, seconds=plan.seconds)
        session = targets[variant.device].run_session(job)
        check_session(variant, session)
        # Begun with its first session: a request that is refused leaves no empty run behind.
        run = run or store.begin(plan, environment)
        store.save_session(run.run_id, variant.key, session)
        done += 1
        on_progress(Progress("session", done, total, variant, session))
    run = run or store.begin(plan, environment)
    for variant in plan.variants if plan.per_op else ():
        if store.profile(run.run_id, variant.key) == (None, ""):
            on_progress(Progress("started", done, total, variant))
            job = Job(
                task="profile",
                artifact=variant.artifact,
                settings=variant.settings,
                seconds=plan.profile_seconds,
            )
            store.save_profile(run.run_id, variant.key, *_profile(targets[variant.device], job))
        done += 1
        on_progress(Progress("profile", done, total, variant))
    store.finish(run.run_id)
    return assemble(store, run)


def _check(variants: Sequence[Variant]) -> None:
    if len({variant.key for variant in variants}) < len(variants):
        raise UsageError("two of the variants are the same thing", "Name each model, runtime and device once.")
    refuse_mixed(variants)


def _profile(target: Target, job: Job) -> tuple[OpProfile | None, str]:
    """A profile, or why there is none: the sessions before it are worth having either way."""
    try:
        return target.run_profile(job), ""
    except KitError as error:
        return None, str(error)


def assemble(store: ResultStore, run: StoredRun) -> BenchRun:
    """Put a stored run together, finished or not; variants without a session are left out."""
    measurements = []
    for variant in run.plan.variants:
        sessions = store.sessions(run.run_id, variant.key)
        if not sessions:
            continue
        stats = latency_stats(sessions)
        profile, failure = store.profile(run.run_id, variant.key)
        measurements.append(
            Measurement(
                variant=variant,
                sessions=tuple(sessions),
                stats=stats,
                verdict=judge(sessions, stats, planned=run.plan.sessions),
                profile=profile,
                profile_failure=failure,
            )
        )
    return BenchRun(
        run_id=run.run_id, created_at=run.created_at, environment=run.environment, measurements=tuple(measurements)
    )
