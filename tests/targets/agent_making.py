"""The agent started by hand, for its tests: a job on its standard input, which stays open, and what it answers."""

import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

from targets.drivers.agent import AgentDriver
from targets.drivers.agent_pack import write_agent
from targets.inventory import Device
from targets.jobs import Job
from targets.records import RunSettings
from targets.transports.base import Completed
from targets.transports.local import LocalTransport
from tests.targets import tiny_models


def job_line(work, task="hello", **more):
    job = {"task": task, "session_id": uuid.uuid4().hex, "nonce": uuid.uuid4().hex, "work_folder": str(work)}
    return {**job, "deadline_s": 60.0, "wait_s": 5.0, "echo": None, "tool": None, "runtime": "onnxruntime", **more}


def start(folder, job, python=sys.executable):
    """A running agent, its standard input open."""
    agent = Path(folder) / "inas_agent.pyz"
    if not agent.exists():
        write_agent(Path(folder))
    process = subprocess.Popen(
        [python, str(agent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    process.stdin.write(json.dumps(job).encode() + b"\n")
    process.stdin.flush()
    return process


def answer(process, job, timeout=60):
    """What it answers; its standard input is closed only after it ended."""
    process.wait(timeout)
    text = process.stdout.read().decode()
    error = process.stderr.read().decode()
    for stream in (process.stdin, process.stdout, process.stderr):
        stream.close()
    begin, end = f"--{job['nonce']}-begin--\n", f"\n--{job['nonce']}-end--"
    assert begin in text and end in text, (process.returncode, text[-300:], error[-2000:])
    return json.loads(text.partition(begin)[2].partition(end)[0])


def gone(pid, timeout=20):
    """Whether a process ends within the time."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        stat = Path(f"/proc/{pid}/stat")
        try:
            if stat.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


def wait_for(condition, timeout=30):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


class Relay(LocalTransport):
    """The local transport with something done to each answer on its way."""

    def __init__(self, device, change, instead=None):
        super().__init__(device)
        self._change, self._instead = change, instead
        self.runs = []

    def run(self, argv, **options):
        job = json.loads(options["input_bytes"]) if options.get("input_bytes") else {}
        self.runs.append(job.get("task", argv[0]))
        if job and self._instead is not None:
            return self._instead(job)
        return self._change(super().run(argv, **options), job)


def relayed(work, change, runtime="onnxruntime", instead=None, **device):
    entry = Device(name="board", work_folder=str(work), **device)
    transport = Relay(entry, change, instead)
    return AgentDriver(entry, transport, runtime), transport


def rewritten(done, edit):
    """The answer with its JSON edited."""
    head, begin, rest = done.stdout.partition(b"-begin--\n")
    text, end, tail = rest.partition(b"\n--")
    found = json.loads(text)
    edit(found)
    return Completed(done.returncode, head + begin + json.dumps(found).encode() + end + tail, done.stderr)


def tiny(folder):
    path = tiny_models.save(tiny_models.tiny_model(), Path(folder) / "tiny.onnx")
    return tiny_models.artifact_of(path)


def timing(artifact, task="time", seconds=0.05, runtime="onnxruntime", **settings):
    return Job(task=task, artifact=artifact, settings=RunSettings(runtime=runtime, **settings), seconds=seconds)


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())
