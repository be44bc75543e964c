"""Claim: ten processes that fight for two devices never use one together, and none is left out or loses a session.

Over lock files and over a real PostgreSQL. On the way one holder is killed, one is stopped for longer than a lease
lasts, and the database is restarted without warning. A lock of its own, held while a process "measures", is witness.

    python -m benchmarks.leases            # a minute for each kind of book
    python -m benchmarks.leases --quick    # ten seconds each
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.leases_worker import open_book, state_of
from benchmarks.postgres import PostgresServer
from targets.environment import capture_environment
from targets.errors import KitError
from targets.plan import BenchPlan, make_variant
from targets.records import Artifact, RunSettings, TensorSpec
from targets.store import ResultStore

LEASE_S = 3.0
UNEVEN = 2.0  # most turns over fewest, of processes that nothing was done to; two turns more count as chance


@dataclass
class Fight:
    """What became of one fight.

    Attributes:
        turns: Turns by worker number, those of disturbed workers left out.
        longest_wait_s: Longest time in line.
        kill_gap_s: From the kill of a holder to the next turn on its device.
        stop_gap_s: From the stop of a holder to the next turn on its device.
        restart_s: How long the database was away; ``None`` without one.
        sessions: Sessions that a worker saw saved.
        problems: What breaks the claim, one sentence each.
    """

    turns: dict[int, int] = field(default_factory=dict)
    longest_wait_s: float = 0.0
    kill_gap_s: float = 0.0
    stop_gap_s: float = 0.0
    restart_s: float | None = None
    sessions: int = 0
    problems: list[str] = field(default_factory=list)


class Arena:
    """The processes of one fight, and what is done to them.

    Args:
        folder: Where they write what they did.
        book: Folder or URL of the leases.
        store: Where sessions go.
        processes: How many.
    """

    def __init__(self, folder: Path, book: str, store: str, processes: int) -> None:
        self.folder, self.place, self.store, self.processes = folder, book, store, processes
        open_book(book, LEASE_S)  # so that the tables are there
        self.workers: dict[int, subprocess.Popen[bytes]] = {}
        artifact = Artifact(
            path="none",
            format="onnx",
            sha256="0" * 64,
            source_sha256="0" * 64,
            inputs=(TensorSpec(name="x", shape=(1,)),),
        )
        variant = make_variant("none", artifact, RunSettings(runtime="onnxruntime"))
        with ResultStore(store) as results:
            plan = BenchPlan(variants=(variant,), sessions=1, seconds=1)
            self.run = results.begin(plan, capture_environment()).run_id

    def start(self, number: int) -> None:
        """Start one process."""
        options = {
            "--book": self.place,
            "--store": self.store,
            "--run": self.run,
            "--number": str(number),
            "--lease-s": str(LEASE_S),
            "--folder": str(self.folder),
        }
        words = [word for pair in options.items() for word in pair]
        errors = (self.folder / f"{number}.err").open("ab")
        with errors:
            command = [sys.executable, "-m", "benchmarks.leases_worker", *words]
            self.workers[number] = subprocess.Popen(command, stderr=errors)

    def start_all(self) -> None:
        """Start all, and let them go together."""
        for number in range(self.processes):
            self.start(number)
        wait_for(lambda: len(list(self.folder.glob("*.ready"))) == self.processes, "a process did not start")
        (self.folder / "go").touch()

    def stop_a_holder(self, device: str) -> int:
        """Stop (SIGSTOP) whoever measures on a device just now; its number."""
        by_pid = {str(process.pid): number for number, process in self.workers.items()}
        witness = self.folder / f"{device}.witness"
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            pid = witness.read_text().strip()
            if pid in by_pid:
                self.workers[by_pid[pid]].send_signal(signal.SIGSTOP)
                wait_for(lambda pid=pid: state_of(int(pid)) == "T", "a process did not stop")  # type: ignore[misc]
                if witness.read_text().strip() == pid:
                    return by_pid[pid]
                self.workers[by_pid[pid]].send_signal(signal.SIGCONT)
            time.sleep(0.005)
        raise KitError(f"no holder of {device} could be caught")

    def end(self) -> None:
        """Let all end by themselves."""
        (self.folder / "stop").touch()
        for number, process in self.workers.items():
            if process.wait(120) != 0 and process.returncode != -signal.SIGKILL:
                text = (self.folder / f"{number}.err").read_text()[-500:]
                raise KitError(f"process {number} ended with {process.returncode}: {text!r}")

    def kill(self) -> None:
        """End what still runs."""
        for process in self.workers.values():
            process.kill()
            process.wait()

    def turns(self) -> Iterable[dict[str, Any]]:
        """What the processes wrote, each with its number."""
        for log in sorted(self.folder.glob("*.log")):
            for line in log.read_text().splitlines():
                yield {"number": int(log.stem), **json.loads(line)}


def wait_for(true: Callable[[], bool], problem: str, deadline_s: float = 120.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + deadline_s
    while not true():
        if time.monotonic() > end:
            raise KitError(problem)
        time.sleep(0.02)


def fight(arena: Arena, seconds: float, server: PostgresServer | None) -> Fight:
    """Let the processes fight, with one kill, one stop and, with a server, one restart."""
    done = Fight()
    arena.start_all()
    began = time.monotonic()
    time.sleep(seconds * 0.2)
    killed = arena.stop_a_holder("device-0")  # stopped first: a moving target might have let go
    kill_time = time.monotonic()
    arena.workers[killed].kill()
    arena.workers.pop(killed).wait()
    time.sleep(seconds * 0.1)
    stopped = arena.stop_a_holder("device-1")
    stop_time = time.monotonic()
    time.sleep(LEASE_S * 1.7)
    arena.workers[stopped].send_signal(signal.SIGCONT)
    if server is not None:
        down = time.monotonic()
        server.stop()
        time.sleep(0.5)
        server.start()
        done.restart_s = time.monotonic() - down
    time.sleep(max(1.0, seconds - (time.monotonic() - began)))
    arena.end()
    turns = list(arena.turns())
    done.kill_gap_s = gap(turns, "device-0", kill_time)
    done.stop_gap_s = gap(turns, "device-1", stop_time)
    if not any("lost" in turn for turn in turns if turn["number"] == stopped):
        done.problems.append("the stopped process did not notice that it had lost its lease")
    counts = Counter(turn["number"] for turn in turns if "session" in turn)
    done.turns = {n: counts[n] for n in range(arena.processes) if n not in {killed, stopped}}
    judge(done, turns, arena)
    return done


def gap(turns: list[dict[str, Any]], device: str, since: float) -> float:
    """Seconds to the next turn on a device; infinite where there was none."""
    return (
        min((t["start"] for t in turns if t["device"] == device and t["start"] > since), default=float("inf")) - since
    )


def judge(done: Fight, turns: list[dict[str, Any]], arena: Arena) -> None:
    """Hold what the processes wrote, and what the store holds, against the claim."""
    finished = [turn for turn in turns if "session" in turn]
    done.longest_wait_s = max(turn["start"] - turn["asked"] for turn in turns)
    done.sessions = len(finished)
    done.problems += [f"{t['device']} was used by two at once" for t in turns if not t["alone"]]
    for device in {turn["device"] for turn in finished}:
        ordered = sorted((t for t in finished if t["device"] == device), key=lambda turn: turn["start"])
        for before, after in pairwise(ordered):
            if after["start"] < before["end"] or after["token"] <= before["token"]:
                done.problems.append(f"turns {before['token']} and {after['token']} on {device} overlap")
    fewest, most = min(done.turns.values()), max(done.turns.values())
    if fewest == 0 or most > UNEVEN * fewest + 2:
        done.problems.append(f"turns are uneven: {fewest} to {most}")
    if max(done.kill_gap_s, done.stop_gap_s) > 10 * LEASE_S:
        done.problems.append("the lease of a killed or stopped holder was not taken over")
    with ResultStore(arena.store) as results:
        stored = [session.session_id for session in results.sessions(arena.run, "variant")]
    lost = {turn["session"] for turn in finished} - set(stored)
    unseen = len(set(stored)) - len(finished)  # the killed process may have saved one and not said so
    if lost or len(stored) != len(set(stored)) or unseen > 1:
        done.problems.append(
            f"{len(lost)} sessions are lost, {len(stored) - len(set(stored))} doubled, {unseen} unseen"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the claim; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--books", nargs="+", choices=["files", "postgresql"], default=["files", "postgresql"])
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    seconds = 10.0 if options.quick else options.seconds
    results: dict[str, Fight] = {}
    for book in options.books:
        with tempfile.TemporaryDirectory(prefix="leases-") as name:
            folder = Path(name)
            if book == "files":
                results[book] = one(
                    folder, str(folder / "leases"), str(folder / "store.sqlite"), options.processes, seconds
                )
            else:
                with PostgresServer() as server:
                    results[book] = one(folder, server.url, server.url, options.processes, seconds, server)
    print(f"{options.processes} processes, 2 devices, turns of 50 ms, leases of {LEASE_S:g} s, {seconds:g} s each")
    print(
        f"{'book':11} {'turns':>6} {'each':>10} {'longest wait':>13} {'after kill':>11} {'after stop':>11} {'away':>6}"
    )
    for book, done in results.items():
        spread = f"{min(done.turns.values())} to {max(done.turns.values())}"
        away = "" if done.restart_s is None else f"{done.restart_s:.1f} s"
        print(
            f"{book:11} {done.sessions:6} {spread:>10} {done.longest_wait_s:11.2f} s "
            f"{done.kill_gap_s:9.2f} s {done.stop_gap_s:9.2f} s {away:>6}"
        )
    problems = [f"{book}: {problem}" for book, done in results.items() for problem in done.problems]
    print("\n".join(problems[:20]), end="\n" if problems else "")
    verdict = "FAILS" if problems else "holds"
    print(f"claim {verdict}: one user a device at any time, nobody left out, no session lost or doubled")
    return 1 if problems else 0


def one(
    folder: Path, book: str, store: str, processes: int, seconds: float, server: PostgresServer | None = None
) -> Fight:
    """One fight, with its processes ended whatever happens."""
    arena = Arena(folder, book, store, processes)
    try:
        return fight(arena, seconds, server)
    finally:
        arena.kill()


if __name__ == "__main__":
    sys.exit(main())
