"""One device harmed again and again, in a process of its own; each outcome is a line of JSON on standard output."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import ModuleType

from benchmarks.faulty.kinds import ALLOWED, Harm, Moment, Usual, draw_harm
from benchmarks.faulty.stands import STANDS, Stand, settled, words_of
from targets.drivers import agent, agent_line
from targets.environment import capture_environment
from targets.errors import KitError, SessionFailed
from targets.inventory import Device
from targets.jobs import Job
from targets.leases.files import FileLeases
from targets.leases.held import HeldLease
from targets.opening import Target, open_target
from targets.phone import about, flags, remote_run, state
from targets.plan import BenchPlan, make_variant
from targets.records import RunSettings, SessionRecord
from targets.stand_ins import check_session
from targets.statistics import session_percentile_ms
from targets.store import ResultStore
from targets.tflite_files import tflite_artifact
from targets.transports import adb, adb_files, adb_session, ssh, ssh_files, ssh_guard, upload_cache

MODEL = Path(__file__).parents[2] / "inas_deploy" / "data" / "check.tflite"
_PADDING = 200_000
_SECONDS = 0.03
_WIDE = 20.0
_CLEAR_S = 15.0
_PATIENT_S, _HURRIED_S = 60.0, 5.0
_CONNECT_S = 20.0
# Deadlines of the drivers and transports that are minutes on a real device, where a hang would take as long.
_DEADLINES: tuple[tuple[ModuleType, str], ...] = (
    (agent, "_GRACE_S"),
    (agent_line, "_HELLO_S"),
    (remote_run, "_GRACE_S"),
    (remote_run, "_SHORT_S"),
    (state, "_TIMEOUT_S"),
    (about, "_TIMEOUT_S"),
    (upload_cache, "_SHORT_S"),
    (ssh_files, "_SHORT_S"),
    (ssh_files, "_PATIENCE_S"),
    (ssh, "_OVERTIME_S"),
    (ssh_guard, "_ANSWER_S"),
    (adb, "SHORT_S"),
    (adb_files, "SHORT_S"),
    (adb_session, "SHORT_S"),
)
_HASHED_BYTES_PER_S = 1e9


@dataclass
class Outcome:
    """What became of one fault.

    Attributes:
        kind: The fault.
        transport: ``ssh`` or ``adb``.
        way: How it was done.
        seed: With which it can be drawn again.
        end: ``kept``, ``retried`` (kept after a new connection), or the class of the failure.
        message: The failure's line.
        wrong: What breaks the claim about figures and classes, one sentence each.
        left: What was left on the device, or here.
        seconds: How long it all took.
    """

    kind: str
    transport: str
    way: str
    seed: str
    end: str = ""
    message: str = ""
    wrong: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    seconds: float = 0.0


def hurry(seconds: float) -> None:
    """Set the deadlines."""
    for module, name in _DEADLINES:
        if not hasattr(module, name):
            raise KitError(f"{module.__name__} has no deadline {name}")
        setattr(module, name, seconds)
    adb_files._SLOWEST_BYTES_PER_S = _HASHED_BYTES_PER_S  # type: ignore[assignment]
    flags.WARMUP_S, flags.LONGEST_S = 0.05, 1.0


def class_of(error: KitError) -> str:
    """Name of a failure in :data:`benchmarks.faulty.kinds.ALLOWED`."""
    if isinstance(error, SessionFailed):
        return error.kind.name
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == KitError.__module__)


class Lane:
    """A device, its store and its leases.

    Args:
        transport: ``ssh`` or ``adb``.
        folder: Where everything goes.
        seed: Of all that is drawn.
    """

    def __init__(self, transport: str, folder: Path, seed: str) -> None:
        self._folder = folder
        self._seed = seed
        self._temporary = folder / "tmp"
        self._temporary.mkdir()
        tempfile.tempdir = str(self._temporary)  # so that what is left here is seen
        model = folder / "model.tflite"
        model.write_bytes(MODEL.read_bytes() + random.Random(seed).randbytes(_PADDING))
        self._artifact = tflite_artifact(model)
        self.stand: Stand = STANDS[transport](folder)
        settings = RunSettings(runtime="tflite")
        self._variant = make_variant("model", self._artifact, settings, device="device", stand_in="virtual")
        self._store = ResultStore(folder / "store.sqlite")
        plan = BenchPlan(variants=(self._variant,), sessions=10_000, seconds=_SECONDS, per_op=False)
        self._run = self._store.begin(plan, capture_environment()).run_id
        self._leases = FileLeases(folder / "leases", lease_s=10.0)
        self._lease: HeldLease | None = None
        self._kept: list[str] = []
        self._reference: SessionRecord | None = None
        self._p50_ms = 0.0
        hurry(_PATIENT_S)
        self.usual: Usual | None = None
        self.usual = self._measure_usual()

    @property
    def kinds(self) -> list[str]:
        """Faults that can be done here."""
        return [kind for kind in ALLOWED if self._possible(kind)]

    def _possible(self, kind: str) -> bool:
        if kind == "full disk":
            return self.stand.small is not None
        return kind != "clock jump" or self.stand.clock.works

    def _job(self) -> Job:
        return Job(
            task="time",
            artifact=self._artifact,
            settings=self._variant.settings,
            index=len(self._kept),
            seconds=_SECONDS,
        )

    def _measure_usual(self) -> Usual:
        bytes_of = []
        took_s = []
        for _ in range(4):
            before = dict(self.stand.relay.passed)
            begin = time.monotonic()
            wrong: list[str] = []
            with self._open(self.stand.device) as target:
                self._session(target, wrong)
            took_s.append(time.monotonic() - begin)
            if wrong:
                raise KitError(f"a session without a fault is wrong: {wrong[0]}")
            bytes_of.append({way: count - before[way] for way, count in self.stand.relay.passed.items()})
        return Usual(sorted(took_s[1:])[1], bytes_of[-1], bytes_of[0])

    @contextlib.contextmanager
    def _open(self, device: Device) -> Iterator[Target]:
        with self._leases.acquire(device.lease_key) as lease:
            self._lease = lease
            with open_target(device, lease) as target:
                yield target

    def _session(self, target: Target, wrong: list[str]) -> SessionRecord:
        """A session, as :func:`targets.measure.measure` takes and keeps it."""
        job = self._job()
        begin = time.monotonic()
        session = target.run_session(job)
        wall_s = time.monotonic() - begin
        wrong += self._judge(job, session, wall_s)
        if self.usual is not None and wall_s < 3 * self.usual.seconds:  # others load this host, now more, now less
            self.usual = replace(self.usual, seconds=0.7 * self.usual.seconds + 0.3 * wall_s)
        check_session(self._variant, session)
        self._store.save_session(self._run, self._variant.key, session)
        self._kept.append(session.session_id)
        return session

    def _judge(self, job: Job, session: SessionRecord, wall_s: float) -> list[str]:
        """What is wrong with a session; the first one is what the others are held against."""
        wrong = []
        if (session.session_id, session.index, session.settings) != (job.session_id, job.index, job.settings):
            wrong.append("the session is another than was asked for")
        p50 = session_percentile_ms(session, 50)
        told = session.summary
        total_ms = told.count * told.mean_ms if told else sum(session.samples_ns) / 1e6
        took_s = (session.finished_at - session.started_at).total_seconds()
        if total_ms > wall_s * 1000 or not 0 <= took_s <= wall_s + 1:
            wrong.append(f"it tells of more time than the {wall_s:.2f} s that went by")
        if p50 is None:
            wrong.append("it has no median")
            return wrong
        first = self._reference
        if first is None:
            self._reference, self._p50_ms = session, p50
            return wrong
        if not self._p50_ms / _WIDE < p50 < self._p50_ms * _WIDE:
            wrong.append(f"p50 is {p50:.4f} ms and {self._p50_ms:.4f} ms is usual")
        for name in ("actual", "versions", "device"):
            if getattr(session, name) != getattr(first, name):
                wrong.append(f"{name} differs: {getattr(session, name)}")
        return wrong

    def harm(self, kind: str, number: int) -> Outcome:
        """Draw faults of a kind until one comes to pass, and tell what became of it."""
        for attempt in range(100):
            seed = f"{self._seed}/{kind}/{number}/{attempt}"
            draw = random.Random(seed)
            outcome = Outcome(kind, self.stand.transport, "", seed)
            begin = time.monotonic()
            assert self.usual is not None
            happened = self._once(draw_harm(kind, self.stand, self.usual, draw), outcome, draw)
            outcome.seconds = time.monotonic() - begin
            if happened or outcome.wrong or outcome.left:
                return outcome
        raise KitError(f"{kind} on {self.stand.transport} does not come to pass")

    def _once(self, harm: Harm, outcome: Outcome, draw: random.Random) -> bool:
        outcome.way = harm.way
        stand, relay = self.stand, self.stand.relay
        hurry(_HURRIED_S if harm.hangs else _PATIENT_S)
        self._lease = None
        harm.before()
        accepted, harmed = relay.accepted, relay.harmed
        relay.fault = harm.wire
        if harm.taken == "stolen":
            harm.later = self._steal
        moment = Moment(harm)
        moment.start()
        with self._second_user(harm, outcome):
            again = self._attempt(harm, outcome, moment, same=draw.random() < 0.3)
        if moment.error is not None:
            raise KitError(f"{harm.kind}, {harm.way}: {moment.error}")
        if outcome.end == "kept" and relay.accepted > accepted + 1:
            outcome.end = "retried"
        happened = moment.happened and (harm.wire is None or relay.harmed > harmed)
        stand.heal()
        relay.cut()  # a silent network that comes back resets what hung in it
        hurry(_PATIENT_S)
        self._cleared(outcome, draw, again=again)
        return happened

    def _attempt(self, harm: Harm, outcome: Outcome, moment: Moment, *, same: bool) -> bool:
        """The session in the middle of which it happens; whether a fault-free one followed it already."""
        again = False
        connect_s = _HURRIED_S if harm.hangs or harm.kind == "auth revoked" else _CONNECT_S
        device = harm.device.model_copy(update={"connect_timeout_s": connect_s})
        try:
            with self._open(device) as target:
                try:
                    self._session(target, outcome.wrong)
                    outcome.end = "kept"
                except KitError as error:
                    self._failed(harm, outcome, error)
                moment.over()
                if same and not harm.taken and not harm.hangs:
                    self.stand.heal()
                    self._healthy(target, outcome, "over the same opening ")
                    again = True
        except KitError as error:
            if not outcome.end:
                self._failed(harm, outcome, error)
            elif class_of(error) not in ALLOWED[harm.kind]:
                outcome.wrong.append(f"closing raised {class_of(error)}: {error}")
        finally:
            moment.over()
        return again

    def _failed(self, harm: Harm, outcome: Outcome, error: KitError) -> None:
        outcome.end, outcome.message = class_of(error), str(error)
        if outcome.end not in ALLOWED[harm.kind]:
            outcome.wrong.append(f"ended in {outcome.end}: {error}")

    def _healthy(self, target: Target, outcome: Outcome, how: str) -> None:
        try:
            self._session(target, outcome.wrong)
        except KitError as error:
            outcome.wrong.append(f"the next session {how}ended in {class_of(error)}: {error}")

    def _cleared(self, outcome: Outcome, draw: random.Random, *, again: bool) -> None:
        """Look for what is left, and take a session without a fault.

        What a host that was locked out could not remove has to be gone after the next opening.
        """
        stand = self.stand
        if not settled(lambda: not stand.processes(), _CLEAR_S):
            outcome.left += [f"process {' '.join(words_of(pid))[:200]!r}" for pid in stand.processes()]
        # A session that was kept came to its end after the fault or in spite of it, which shows the same.
        again = again or (outcome.end in ("kept", "retried") and draw.random() < 0.75)
        if not again or not settled(lambda: not stand.files(), 2):
            try:
                with self._open(stand.device) as target:
                    self._healthy(target, outcome, "")
            except KitError as error:
                outcome.wrong.append(f"the next opening ended in {class_of(error)}: {error}")
        if not settled(lambda: not stand.files() and not stand.processes(), _CLEAR_S):
            outcome.left += stand.files()
        outcome.left += [f"here: {path.name}" for path in self._temporary.iterdir()]

    @contextlib.contextmanager
    def _second_user(self, harm: Harm, outcome: Outcome) -> Iterator[None]:
        if harm.taken == "held":
            with self._leases.acquire(harm.device.lease_key):
                yield
        elif harm.taken == "stolen":
            with contextlib.ExitStack() as self._thief:
                yield
        elif harm.company:
            other = threading.Thread(target=self._company, args=(harm, outcome))
            other.start()
            try:
                yield
            finally:
                other.join()
        else:
            yield

    def _steal(self) -> bool:
        """Give the lease to somebody else, as if we had been held up for too long."""
        lease = self._lease
        if lease is None:
            return False
        self._leases.drop(lease.key, lease._claim_id)
        self._thief.enter_context(self._leases.acquire(lease.key))
        return True

    def _company(self, harm: Harm, outcome: Outcome) -> None:
        """Somebody else's session on the same device, at the same time, without a lease."""
        time.sleep(harm.at_s / 2)
        job = self._job()
        try:
            with open_target(self.stand.direct) as target:
                begin = time.monotonic()
                session = target.run_session(job)
                outcome.wrong += [f"the other's: {w}" for w in self._judge(job, session, time.monotonic() - begin)]
        except KitError as error:
            outcome.wrong.append(f"the second user ended in {class_of(error)}: {error}")

    def audit(self) -> list[str]:
        """Hold the store against what was saved."""
        stored = [session.session_id for session in self._store.sessions(self._run, self._variant.key)]
        if sorted(stored) == sorted(set(self._kept)) and len(stored) == len(self._kept):
            return []
        return [f"the store holds {len(stored)} sessions, {len(set(stored))} different, of {len(self._kept)} kept"]

    def close(self) -> None:
        """Stop the device."""
        self._store.__exit__(None, None, None)
        self.stand.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a lane; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("transport", choices=sorted(STANDS))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seed", required=True)
    parser.add_argument("--faults", required=True, help="names of faults, separated by commas")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the device is to be stopped, too
    os.environ["OMP_NUM_THREADS"] = "1"
    lane = Lane(options.transport, options.folder, options.seed)
    try:
        for number, kind in enumerate(options.faults.split(",")):
            say(asdict(lane.harm(kind, number)) if kind in lane.kinds else {"skipped": kind})
        say({"audit": lane.audit(), "sessions": len(lane._kept)})
    finally:
        lane.close()
    return 0


def say(line: object) -> None:
    """One line for the parent."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
