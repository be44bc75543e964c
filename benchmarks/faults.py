"""Claim: whatever goes wrong with a device, no figure is wrong, no session is lost or doubled, nothing is left there.

Faults are injected at moments drawn by seed into sessions over a real sshd and a real adbd, on virtual devices of this
host, with the real drivers. After each, the failure's class, the device's processes and files, and the next session
are looked at. Deadlines of minutes are shortened to seconds while the wire is silent. Several devices are harmed at
the same time.

    python -m benchmarks.faults            # 1,000 faults
    python -m benchmarks.faults --quick    # one of each kind over each transport
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import random
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from benchmarks.faulty.kinds import ALLOWED

TRANSPORTS = ("ssh", "adb")


@dataclass
class Row:
    """Faults of one kind over one transport.

    Attributes:
        injected: How many came to pass.
        kept: Sessions that were kept.
        retried: Sessions that were kept after a new connection.
        refused: Failures by class.
        wrong: What breaks the claim, one sentence each.
        left: What was left behind, one sentence each.
    """

    injected: int = 0
    kept: int = 0
    retried: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def add(self, outcome: dict[str, Any]) -> None:
        """Count one outcome."""
        self.injected += 1
        self.kept += outcome["end"] == "kept"
        self.retried += outcome["end"] == "retried"
        if outcome["end"] not in ("kept", "retried"):
            self.refused[outcome["end"]] += 1
        where = f"{outcome['transport']}, {outcome['kind']}, {outcome['way']} [{outcome['seed']}]"
        self.wrong += [f"{where}: {problem}" for problem in outcome["wrong"]]
        self.left += [f"{where}: {problem}" for problem in outcome["left"]]


@dataclass
class Tally:
    """All that the lanes told.

    Attributes:
        rows: By fault and transport.
        sessions: Sessions in the stores.
        skipped: Faults that this host cannot inject, by fault and transport.
        problems: What went wrong with a lane, or with its store.
    """

    rows: dict[tuple[str, str], Row]
    sessions: int = 0
    skipped: Counter[tuple[str, str]] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    @property
    def injected(self) -> int:
        """Faults in all."""
        return sum(row.injected for row in self.rows.values())

    @property
    def wrong(self) -> list[str]:
        """Everything that breaks the claim."""
        rows = self.rows.values()
        return [*self.problems, *(w for row in rows for w in row.wrong), *(text for row in rows for text in row.left)]


def shares(count: int, lanes: int, draw: random.Random) -> list[tuple[str, list[str]]]:
    """Transport and faults of each lane, each kind as often as the others."""
    everything = [(transport, kind) for kind in ALLOWED for transport in TRANSPORTS]
    wanted = [everything[number % len(everything)] for number in range(count)]
    found = []
    for transport in TRANSPORTS:
        kinds = [kind for way, kind in wanted if way == transport]
        draw.shuffle(kinds)
        mine = max(1, lanes // len(TRANSPORTS))
        found += [(transport, kinds[first::mine]) for first in range(mine) if kinds[first::mine]]
    return found


def follow(process: subprocess.Popen[str], lane: int, lines: queue.Queue[tuple[int, dict[str, Any]]]) -> None:
    """Pass a lane's lines on until it ends."""
    assert process.stdout is not None
    for line in process.stdout:
        lines.put((lane, json.loads(line)))
    lines.put((lane, {"ended": process.wait()}))


def harm_all(parts: Sequence[tuple[str, list[str]]], folder: Path, seed: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Run all lanes at the same time and give what they tell, each with the lane's number."""
    lines: queue.Queue[tuple[int, dict[str, Any]]] = queue.Queue()
    processes = []
    try:
        for number, (transport, kinds) in enumerate(parts):
            (place := folder / f"lane-{number}").mkdir()
            argv = [sys.executable, "-m", "benchmarks.faulty.lane", transport, "--folder", str(place)]
            argv += ["--seed", f"{seed}.{number}", "--faults", ",".join(kinds)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            with (folder / f"lane-{number}.err").open("w") as errors:
                processes.append(
                    subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
                )
            threading.Thread(target=follow, args=(processes[-1], number, lines), daemon=True).start()
        running = len(processes)
        while running:
            number, told = lines.get()
            running -= "ended" in told
            yield number, told
    finally:
        for process in processes:
            process.terminate()
            process.wait()


def tally(parts: Sequence[tuple[str, list[str]]], folder: Path, seed: int) -> Tally:
    """Inject everything and count."""
    done = Tally({(kind, transport): Row() for kind in ALLOWED for transport in TRANSPORTS})
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("faults", total=sum(len(kinds) for _, kinds in parts))
        for number, told in harm_all(parts, folder, seed):
            transport = parts[number][0]
            if "kind" in told:
                done.rows[told["kind"], transport].add(told)
                progress.advance(task)
                if told["wrong"] or told["left"]:
                    progress.console.print(f"{done.injected}: {json.dumps(told)}", markup=False)
            elif "skipped" in told:
                done.skipped[told["skipped"], transport] += 1
                progress.advance(task)
            elif "audit" in told:
                done.sessions += told["sessions"]
                done.problems += told["audit"]
            elif told["ended"] != 0:
                text = (folder / f"lane-{number}.err").read_text(errors="replace").strip()[-1500:]
                done.problems.append(f"lane {number} ({transport}) ended with {told['ended']}: {text}")
    return done


def table(done: Tally) -> str:
    """The table by fault and transport."""
    lines = ["fault           over injected  kept retried refused wrong left"]
    for (kind, transport), row in done.rows.items():
        refused = sum(row.refused.values())
        classes = ", ".join(f"{count} {name}" for name, count in row.refused.most_common())
        figures = f"{row.injected:8} {row.kept:5} {row.retried:7} {refused:7} {len(row.wrong):5} {len(row.left):4}"
        lines.append(f"{kind:15} {transport:4} {figures}  {classes}".rstrip())
    for (kind, transport), count in done.skipped.items():
        why = "needs root and mount" if kind == "full disk" else "needs a C compiler"
        lines.append(f"{kind} over {transport} was left out {count} times: it {why}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the claim; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="faults in all")
    parser.add_argument("--lanes", type=int, default=6, help="devices at the same time, half of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="one of each kind over each transport")
    parser.add_argument("--json", type=Path, help="write the table here, too")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the lanes are to be ended, too
    if options.quick:
        options.count = len(ALLOWED) * len(TRANSPORTS)
    with tempfile.TemporaryDirectory(prefix="inas-faults-") as folder:
        parts = shares(options.count, options.lanes, random.Random(options.seed))
        done = tally(parts, Path(folder), options.seed)
    print(f"{done.injected} faults, seed {options.seed}, {len(parts)} virtual devices at the same time")
    print(table(done))
    for problem in done.wrong[:40]:
        print(f"  {problem}")
    wanted = sum(len(kinds) for _, kinds in parts) - sum(done.skipped.values())
    good = not done.wrong and done.injected == wanted
    if options.json is not None:
        rows = [{"fault": k, "transport": t, **vars(row)} for (k, t), row in done.rows.items()]
        options.json.write_text(json.dumps({"rows": rows, "sessions": done.sessions, "problems": done.problems}))
    ways = list(done.rows.values())
    counts = f"{sum(len(row.wrong) for row in ways)} wrong, {sum(len(row.left) for row in ways)} left behind"
    print(
        f"claim {'holds' if good else 'FAILS'}: {done.injected} of {wanted} faults injected, {counts}, "
        f"{len(done.problems)} lost, doubled or broken off; {done.sessions} sessions, each in its store once"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
