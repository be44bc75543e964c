"""A tool that prints garbage: a small script in front of the real one, which does as a file beside it says."""

from __future__ import annotations

import random
import shlex
from pathlib import Path

MODES = ("before", "after", "instead", "cut", "inside")

_SCRIPT = """#!/bin/sh
export @CLOCK@
mode= place=
{ read -r mode place < @FOLDER@/mode; } 2>/dev/null
[ "$1" = --help ] && mode=
case $mode in
before) cat @FOLDER@/noise; exec @TOOL@ "$@" ;;
after) @TOOL@ "$@"; code=$?; cat @FOLDER@/noise; exit $code ;;
instead) cat @FOLDER@/noise; exit 0 ;;
cut | inside)
  @TOOL@ "$@" > @FOLDER@/printed.$$
  code=$?
  at=$(($(wc -c < @FOLDER@/printed.$$) * place / 10000))
  head -c "$at" @FOLDER@/printed.$$
  [ "$mode" = inside ] && { cat @FOLDER@/noise; tail -c "+$((at + 1))" @FOLDER@/printed.$$; }
  rm -f @FOLDER@/printed.$$
  exit $code ;;
esac
exec @TOOL@ "$@"
"""


class Mangler:
    """What stands in front of a tool.

    Args:
        folder: Where the script goes.
        inside: The same folder as the device names it.
        tool: The real tool, as the device names it.
        clock: Words that set its environment.

    Attributes:
        tool: The script as the device names it.
    """

    def __init__(self, folder: Path, inside: str, tool: str, clock: str) -> None:
        self._folder = folder
        self.tool = f"{inside}/tool"
        text = _SCRIPT.replace("@CLOCK@", clock or "INAS_CLOCK=").replace("@TOOL@", shlex.quote(tool))
        script = folder / "tool"
        script.write_text(text.replace("@FOLDER@", shlex.quote(inside)))
        script.chmod(0o755)
        self.honest()

    def garble(self, draw: random.Random) -> str:
        """Print garbage from now on; gives the way it is done."""
        mode = draw.choice(MODES)
        noise = b"\x1b[2J\x00\xff" + draw.randbytes(draw.randrange(1, 5000)) + b"\n" * draw.randrange(2)
        (self._folder / "noise").write_bytes(noise)
        (self._folder / "mode").write_text(f"{mode} {draw.randrange(10_001)}\n")
        return mode

    def honest(self) -> None:
        """Print what the tool prints."""
        (self._folder / "mode").write_text("honest 0\n")
