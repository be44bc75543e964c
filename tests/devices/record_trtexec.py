"""Make the recording of a board with ``trtexec`` again: ``python -m tests.devices.record_trtexec``.

The board is this machine and its ``trtexec`` the stand-in beside this file, since no NVIDIA GPU is at hand: the
conversation and its files are those of a real session, the figures are made up. To be repeated after a change of what
the agent is told.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.chain import write_chain

HERE = Path(__file__).resolve().parent
PLACE = HERE / "recordings" / "trtexec-8.2.1.jsonl"
BOARD = Path("/tmp/inas-board")  # stands in the recording, so it is the same everywhere
BENCH = ("--target", "board", "--model", "chain.onnx", "--sessions", "3", "--seconds", "1")
ENTRY = """
runtime = "tensorrt"
runtime_version = "8.2"
accelerator = "gpu"
tool = "/tmp/inas-board/bin/trtexec"
"""


def write_model(folder):
    """The model that was recorded: the same bytes everywhere, whatever exports the kit's own networks."""
    write_chain(folder / "chain.onnx", 4, opset=13)


def main():
    shutil.rmtree(BOARD, ignore_errors=True)
    tool = BOARD / "bin" / "trtexec"
    tool.parent.mkdir(parents=True)
    tool.write_text(f'#!/bin/sh\nTRTEXEC_VERSION=8.2.1 exec {sys.executable} {HERE / "trtexec_stand_in.py"} "$@"\n')
    tool.chmod(0o755)
    with tempfile.TemporaryDirectory() as folder:
        entry = f'[devices.board]\ntransport = "local"\nwork_folder = "{BOARD}/files"\nstand_in = "virtual"{ENTRY}'
        Path(folder, "devices.toml").write_text(entry)
        write_model(Path(folder))
        command = [sys.executable, "-m", "inas_deploy", "bench", *BENCH, "--record", str(PLACE)]
        subprocess.run([*command, "--store", "live.sqlite"], cwd=folder, check=True)
    shutil.rmtree(BOARD)


if __name__ == "__main__":
    main()
