"""Run the real command line in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def command(*words):
    return [sys.executable, "-P", "-m", "inas_deploy", *map(str, words)]


def environment(**more):
    known = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *([known] if known else [])]),
        "COLUMNS": "120",
        **more,
    }


def run(*words, cwd, timeout=300, **more):
    """Run ``inas-deploy WORDS`` and give the finished process."""
    return subprocess.run(
        command(*words), cwd=cwd, env=environment(**more), capture_output=True, text=True, timeout=timeout, check=False
    )


def start(*words, cwd):
    """Start ``inas-deploy WORDS`` and give the running process."""
    return subprocess.Popen(
        command(*words), cwd=cwd, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def workers(folder):
    """Processes measuring for a bench whose temporary files lie in ``folder``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if "targets.worker" in line and str(folder) in line:
                found.append(int(entry.name))
    return found
