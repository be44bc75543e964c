"""The agent: reads one job as a JSON line, does it, prints one answer between two markers.

    (cat job.json; cat) | python3 inas_agent.pyz

It ends itself, its tools and its session's folder when its standard input closes. A finished answer stays in that
folder, so that an answer lost on the way is fetched under the same session id and nothing is measured twice.
"""

import errno
import json
import os
import platform
import re
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict

from targets.agent import runtime_onnxruntime, runtime_openvino, runtime_tflite
from targets.agent.about import about
from targets.agent.guard import ANSWER, Guard, claim, clear_folder, remove_file, try_claim
from targets.agent.model import stage_model
from targets.agent.protocol import Refused, bad_setting
from targets.agent.state import Sampler, reading
from targets.agent.tools import run_steps

PROTOCOL = 1
# All our own modules are loaded at the start: the file they come from may be replaced while we wait. The runtimes
# themselves are imported where they are used.
_RUNTIMES = {"onnxruntime": runtime_onnxruntime, "openvino": runtime_openvino, "tflite": runtime_tflite}
_MAX_JOB_BYTES = 64 * 2**20
_KEEP_ANSWER_S = 86400.0
_HEX32 = re.compile(r"[0-9a-f]{32}\Z")


def _read_job() -> Dict[str, Any]:
    """The first line of standard input, read past Python's buffers: the guard reads on from there."""
    data = bytearray()
    while not data.endswith(b"\n"):
        chunk = os.read(0, 65536)
        if not chunk or len(data) > _MAX_JOB_BYTES:
            sys.exit("inas_agent: no whole job came in")
        data += chunk
    job = json.loads(data.decode("utf-8"))
    for key in ("session_id", "nonce"):
        if not _HEX32.match(str(job.get(key))):
            sys.exit(f"inas_agent: {key} must be 32 hexadecimal digits")
    if not Path(job["work_folder"]).is_absolute():
        sys.exit("inas_agent: work_folder must be absolute")
    return dict(job)


def _pin(job: Dict[str, Any]) -> None:
    cores = job.get("pinned_cores")
    if cores is None:
        return
    if not hasattr(os, "sched_setaffinity"):
        raise bad_setting("pinned_cores is set and the device cannot pin a process", "Leave pinned_cores out.")
    try:
        os.sched_setaffinity(0, cores)
    except OSError as error:
        raise bad_setting(
            f"cannot pin to cores {cores}: {error.strerror}", "Name cores that the device has."
        ) from error


def _sweep(sessions: Path, keep_s: float = _KEEP_ANSWER_S) -> Dict[str, Any]:
    """Remove the folders of agents that are gone; finished answers stay for a day unless told otherwise."""
    removed = 0
    for folder in sorted(sessions.glob("*")) if sessions.is_dir() else []:
        if not _HEX32.match(folder.name):
            continue
        held = try_claim(folder)
        if held is None:
            continue
        answer = folder / ANSWER
        if answer.is_file() and abs(time.time() - answer.stat().st_mtime) >= keep_s:
            remove_file(answer)
        clear_folder(folder)
        removed += not folder.exists()
        os.close(held)
    return {"removed": removed}


def _perform(job: Dict[str, Any], folder: Path, guard: Guard) -> Dict[str, Any]:
    task = job["task"]
    if task == "hello":
        _sweep(folder.parent, keep_s=0.0)  # a new holder of the device: whoever was to fetch an answer is gone
        return about(job, guard)
    if task == "sweep":
        return _sweep(folder.parent)
    if task == "state":
        return {"readings": [reading("before")]}
    if task not in ("time", "profile", "tools"):
        raise bad_setting(f"this agent knows no task {task!r}", "Use the agent that came with the kit.")
    _pin(job)
    result: Dict[str, Any] = {"files": stage_model(job["model"], folder)}
    path = folder / job["model"]["name"]
    before = reading("before")
    sampler = Sampler(folder, guard)
    if task == "tools":
        result.update(run_steps(job, folder, guard, sampler))
    else:
        runtime = _runtime(job["runtime"])
        do = runtime.time_model if task == "time" else runtime.profile_model
        result.update(do(job, path, folder, sampler))
    result["pid"] = os.getpid()
    result["readings"] = [before, *sampler.readings, reading("after")]
    return result


def _runtime(name: str) -> Any:
    if name not in _RUNTIMES:
        raise bad_setting(f"this agent knows no runtime {name!r}", "Use the agent that came with the kit.")
    return _RUNTIMES[name]


def _answer(job: Dict[str, Any], folder: Path, guard: Guard) -> str:
    """The answer as one line of JSON; a result is stored before it is sent."""
    answer = {
        "protocol": PROTOCOL,
        "session_id": job["session_id"],
        "task": job["task"],
        "echo": job.get("echo"),
        "python": platform.python_version(),
        "started_at": datetime.now(timezone.utc).isoformat(),
    }
    begin = time.monotonic()
    try:
        answer["result"] = _perform(job, folder, guard)
    except Refused as refused:
        answer["failure"] = refused.answer()
    except MemoryError:
        answer["failure"] = Refused("out of memory on the device", "out_of_memory", "Take a smaller input.").answer()
    except OSError as error:
        kind = "out_of_memory" if error.errno == errno.ENOMEM else "tool_error"
        answer["failure"] = Refused(f"{error.filename or 'the device'}: {error.strerror}", kind).answer()
    answer["took_s"] = time.monotonic() - begin  # the device's wall clock may jump meanwhile
    text = json.dumps(answer, allow_nan=False)
    if "result" in answer and job["task"] in ("time", "tools"):
        _store(folder, text)
    return text


def _store(folder: Path, text: str) -> None:
    half = folder / (ANSWER + ".part")
    try:
        with half.open("w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        half.replace(folder / ANSWER)
    except OSError as error:  # the answer is still sent; it only cannot be fetched a second time
        sys.stderr.write(f"inas_agent: cannot store the answer: {error.strerror}\n")
        remove_file(half)


def _stored(job: Dict[str, Any], folder: Path) -> str:
    """The answer of an earlier agent to the same job, or nothing."""
    path = folder / ANSWER
    if not path.is_file():
        return ""
    text = path.read_text(encoding="ascii")
    if json.loads(text).get("echo") == job.get("echo"):
        return text
    remove_file(path)
    return ""


def main() -> None:
    """Do the job on standard input."""
    out = os.dup(1)
    os.dup2(2, 1)  # runtimes print as they please; only the answer goes to the host's stream
    job = _read_job()
    folder = Path(job["work_folder"]) / "sessions" / job["session_id"]
    try:
        held = claim(folder, float(job.get("wait_s", 60.0)))
    except Refused as refused:
        text = json.dumps(
            {"protocol": PROTOCOL, "session_id": job["session_id"], "task": job["task"], "failure": refused.answer()}
        )
    else:
        guard = Guard(folder, job.get("scratch", []), float(job["deadline_s"]))
        text = _stored(job, folder) or _answer(job, folder, guard)
        guard.release()
        os.close(held)
    nonce = job["nonce"]
    with os.fdopen(out, "wb") as stream:
        stream.write(f"\n--{nonce}-begin--\n{text}\n--{nonce}-end--\n".encode("ascii"))


if __name__ == "__main__":
    main()
