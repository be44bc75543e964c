"""Tools that time by themselves (``trtexec``, ``benchmark_app``): run one after the other, each with a deadline."""

import errno
import os
import resource
import select
import subprocess
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

from targets.agent.counters import HostWatch, peak_rss_mb
from targets.agent.guard import Guard, remove_file
from targets.agent.protocol import Refused, missing, packed, packed_file
from targets.agent.state import Sampler

_HEAD_BYTES = _TAIL_BYTES = 2 * 2**20


def run_steps(job: Dict[str, Any], folder: Path, guard: Guard, sampler: Sampler) -> Dict[str, Any]:
    """Run the steps of a job until one fails; a step whose product is there already is skipped.

    Raises:
        Refused: If a program cannot be started or does not end in time.
    """
    outcomes: List[Dict[str, Any]] = []
    watch: Optional[HostWatch] = None
    for step in job["steps"]:
        if step.get("skip_if") and Path(step["skip_if"]).is_file():
            outcomes.append({"skipped": True})
            continue
        for _made, place in step.get("keep", []):
            Path(place).parent.mkdir(parents=True, exist_ok=True)
        if step.get("sample"):
            sampler.start()
            watch = HostWatch(resource.RUSAGE_CHILDREN)
        outcome = _run(step, folder, guard)
        if step.get("sample"):
            sampler.stop()
        outcomes.append(outcome)
        for made, place in step.get("keep", []):
            if outcome["returncode"] == 0 and Path(made).is_file():
                Path(made).replace(Path(place))
            else:
                remove_file(Path(made))
        if outcome["returncode"] != 0:
            break
        outcome["files"] = {
            key: packed_file(Path(path)) for key, path in sorted(step.get("returns", {}).items()) if Path(path).exists()
        }
    result: Dict[str, Any] = {"steps": outcomes, "peak_rss_mb": peak_rss_mb(resource.RUSAGE_CHILDREN)}
    if watch is not None:
        result.update(watch.snapshot())
    return result


def _run(step: Dict[str, Any], folder: Path, guard: Guard) -> Dict[str, Any]:
    argv = step["argv"]
    begin = time.monotonic()
    process = start(argv, step.get("env", {}), folder, guard)
    try:
        text = _listen(process, Path(argv[0]).name, float(step["timeout_s"]))
    finally:
        guard.kill(process)
    return {
        "returncode": process.returncode,
        "pid": process.pid,
        "wall_s": time.monotonic() - begin,
        "log": packed(text),
    }


def start(argv: List[str], env: Dict[str, str], folder: Path, guard: Guard) -> Any:
    """Start a tool in a group of its own; its output comes through one pipe, in order.

    Raises:
        Refused: If it cannot be started.
    """
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            cwd=str(folder),
            env=_environment(env),
            preexec_fn=guard.start_tool,
        )
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EACCES, errno.ENOEXEC):
            raise missing(
                f"{argv[0]} cannot be started on the device: {error.strerror}",
                "Install it, or name its full path with 'tool' in the inventory.",
            ) from error
        raise


def _listen(process: Any, name: str, timeout_s: float) -> bytes:
    """What a tool prints until it ends: the start and the end of it, where it is long."""
    head, tail, size = bytearray(), bytearray(), 0
    end = time.monotonic() + timeout_s
    stream = process.stdout.fileno()
    while True:
        left_s = end - time.monotonic()
        if left_s <= 0:
            raise Refused(
                f"{name} was stopped at its deadline of {timeout_s:g} s",
                "timeout",
                "Give it more time or less to do.",
            )
        ended = process.poll() is not None
        if not select.select([stream], [], [], 0 if ended else min(left_s, 0.2))[0]:
            if ended:
                break
            continue
        data = os.read(stream, 65536)
        if not data:
            try:
                process.wait(timeout=left_s)
            except subprocess.TimeoutExpired:
                continue
            break
        size += len(data)
        room = _HEAD_BYTES - len(head)
        head += data[:room] if room > 0 else b""
        tail += data[max(room, 0) :]
        del tail[:-_TAIL_BYTES]
    cut = size - len(head) - len(tail)
    return bytes(head) + (f"\n[{cut} bytes left out]\n".encode("ascii") if cut else b"") + bytes(tail)


def _environment(more: Dict[str, str]) -> Dict[str, str]:
    """Variables of a tool: the device's own, in the language that parsers know, and what the host adds."""
    known = dict(os.environ)
    known.update(LC_ALL="C", LANGUAGE="C", CI="true")  # benchmark_app reports usage over the network unless in CI
    known.update(more)
    return known
