"""Run the tool on the phone so that its answer outlives the connection: written there first, fetched after.

Everything of a session lies in one folder, named by its id. A session that is asked for again finds its answer there
and is not measured a second time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from targets.errors import FailureKind, SessionFailed, printable
from targets.transports.base import Transport

MAX_ANSWER_BYTES = 4 * 2**20
QUIET_S = 60
"""Seconds without a word from us after which a tool in the background is ended on the phone."""

_GRACE_S = 240.0  # loading and delegating a large model on a slow phone
_SHORT_S = 60.0

_FETCH = r"""
for name in code out err ops.csv; do
  printf '\n@@%s %s\n' "$id" "$name"
  [ -f "$folder/$name" ] && head -c MAX_BYTES "$folder/$name"
done
printf '\n@@%s end\n' "$id"
""".replace("MAX_BYTES", str(MAX_ANSWER_BYTES))

# A tool that prints without end is ended when its file is full: shells count 512 or 1,024 bytes a block.
_BLOCKS = str(2**14)
_RUN = (
    r"""
folder=$1; id=$2; shift 2
if [ ! -f "$folder/code" ]; then
  rm -rf "$folder"; mkdir -p "$folder" && echo $$ > "$folder/pid" || exit 97
  ( ulimit -f BLOCKS 2>/dev/null; exec "$@" > "$folder/out" 2> "$folder/err" < /dev/null )
  echo $? > "$folder/code.part" && mv "$folder/code.part" "$folder/code" || exit 97
fi
"""
    + _FETCH
).replace("BLOCKS", _BLOCKS)

# Ends the tool, and itself, when nobody has changed the beat for a while: we are gone.
_KEEPER = r"""
folder=$1; shift
echo $$ > "$folder/pid"
( ( ulimit -f BLOCKS 2>/dev/null; exec "$@" > "$folder/out" 2> "$folder/err" < /dev/null )
  echo $? > "$folder/code.part"; mv "$folder/code.part" "$folder/code" ) &
last=; quiet=0
while [ ! -f "$folder/code" ]; do
  sleep 1
  beat=; read -r beat 2>/dev/null < "$folder/beat"
  if [ "$beat" = "$last" ]; then quiet=$((quiet + 1)); else quiet=0; last=$beat; fi
  if [ "$quiet" -gt QUIET_S ]; then rm -rf "$folder"; kill -9 -$$; fi
done
""".replace("QUIET_S", str(QUIET_S)).replace("BLOCKS", _BLOCKS)

_START = r"""
folder=$1; keeper=$2; shift 2
if [ ! -f "$folder/code" ] && ! { [ -f "$folder/pid" ] && kill -0 "$(cat "$folder/pid")" 2>/dev/null; }; then
  rm -rf "$folder"; mkdir -p "$folder" || exit 97
  echo start > "$folder/beat"
  setsid sh -c "$keeper" sh "$folder" "$@" > /dev/null 2>&1 < /dev/null &
  tries=0
  while [ ! -f "$folder/pid" ] && [ "$tries" -lt 50 ]; do sleep 0.1; tries=$((tries + 1)); done
  [ -f "$folder/pid" ] || exit 98
fi
"""

_POLL = r"""
folder=$1
echo "$2" > "$folder/beat"
if [ -f "$folder/code" ]; then echo done
elif kill -0 "$(cat "$folder/pid" 2>/dev/null)" 2>/dev/null; then echo running
else echo gone; fi
"""

# Ends and removes what is ours; of others, what nobody works on any more. A number may be another process's by now.
_STOP = r"""
cd "$1" 2>/dev/null || exit 0
shift
for run in *; do
  [ -d "$run" ] || continue
  pid=; read -r pid 2>/dev/null < "$run/pid"
  if [ -n "$pid" ] && [ ! -f "$run/code" ] && grep -qs "$run" "/proc/$pid/cmdline"; then
    case " $* " in *" $run "*) kill -9 -"$pid" 2>/dev/null ;; *) continue ;; esac
  fi
  rm -rf "$run"
done
"""


@dataclass(frozen=True)
class ToolAnswer:
    """What a run of the tool left.

    Attributes:
        returncode: Exit status; minus the signal's number where a signal ended it.
        stdout: What it printed.
        stderr: What it complained about.
        csv: The file it wrote its op profile to; empty where it wrote none.
    """

    returncode: int
    stdout: str
    stderr: str
    csv: str

    @property
    def text(self) -> str:
        """All it printed, standard output first."""
        return f"{self.stdout}\n{self.stderr}"


class RemoteRuns:
    """Runs of a tool on one phone.

    Args:
        transport: The way to it.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._sessions = f"{transport.work_folder}/sessions"
        self._mine: set[str] = set()

    def folder(self, run_id: str) -> str:
        """Where a run keeps its files on the phone."""
        return f"{self._sessions}/{run_id}"

    def run(self, run_id: str, argv: Sequence[str], *, limit_s: float) -> ToolAnswer:
        """Run the tool and wait for it; a run that ended already is fetched.

        Args:
            run_id: Hexadecimal id of this run.
            argv: Tool and arguments.
            limit_s: How long the tool may time, seconds; loading has time on top.

        Raises:
            SessionFailed: As :meth:`targets.transports.base.Transport.run`; ``TOOL_ERROR`` if the answer is not whole.
        """
        self._mine.add(run_id)
        words = ["sh", "-c", _RUN, "sh", self.folder(run_id), run_id, *argv]
        return self._answer(run_id, words, timeout_s=limit_s + _GRACE_S)

    def run_watched(
        self,
        run_id: str,
        argv: Sequence[str],
        *,
        limit_s: float,
        every_s: float,
        on_poll: Callable[[], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> ToolAnswer:
        """Run the tool in the background of the phone, and look at the phone meanwhile; fetch the answer at its end.

        Args:
            run_id: Hexadecimal id of this run.
            argv: Tool and arguments.
            limit_s: How long the tool may time, seconds.
            every_s: Time between two looks.
            on_poll: Called at each of them.
            sleep: Waits so many seconds.

        Raises:
            SessionFailed: As :meth:`run`; ``TIMEOUT`` if the tool does not end, ``TOOL_ERROR`` if it vanishes.
        """
        folder = self.folder(run_id)
        self._mine.add(run_id)
        self._short([_START, "sh", folder, _KEEPER, *argv])
        deadline, beats = time.monotonic() + limit_s + _GRACE_S, 0
        while True:
            beats += 1
            word = self._short([_POLL, "sh", folder, str(beats)]).strip()
            if word == "done":
                return self._answer(run_id, ["sh", "-c", _RUN, "sh", folder, run_id, "false"], timeout_s=_SHORT_S)
            if word != "running":
                raise SessionFailed("the tool in the background of the phone is gone", FailureKind.TOOL_ERROR)
            if time.monotonic() > deadline:
                self.stop_all()
                raise SessionFailed(f"the tool still ran after {limit_s + _GRACE_S:.0f} s", FailureKind.TIMEOUT)
            on_poll()
            sleep(every_s)

    def forget(self, run_id: str) -> None:
        """Remove the files of a run."""
        self._transport.remove(self.folder(run_id))
        self._mine.discard(run_id)

    def stop_all(self) -> None:
        """End our runs in the background, and remove their files and those of runs that somebody left behind."""
        self._short([_STOP, "sh", self._sessions, *sorted(self._mine)])
        self._mine.clear()

    def _short(self, words: Sequence[str]) -> str:
        done = self._transport.run(["sh", "-c", *words], timeout_s=_SHORT_S)
        if done.returncode in (97, 98):
            raise _unwritable(done.stderr)
        return done.stdout.decode("utf-8", "replace")

    def _answer(self, run_id: str, words: Sequence[str], *, timeout_s: float) -> ToolAnswer:
        done = self._transport.run(words, timeout_s=timeout_s)
        if done.returncode == 97:
            raise _unwritable(done.stderr)
        if done.returncode == -9:
            return ToolAnswer(-9, "", "", "")
        text = done.stdout.decode("utf-8", "replace").replace("\r\n", "\n")
        pieces = re.split(rf"\n@@{run_id} ([a-z.]{{3,8}})\n", text)
        parts = dict(zip(pieces[1::2], pieces[2::2], strict=True))
        code = parts.get("code", "").strip()
        if not {"out", "err", "end"} <= parts.keys() or not re.fullmatch(r"[0-9]{1,3}", code):
            raise SessionFailed(
                f"the phone's answer is not whole; it ends in {printable(text[-120:])!r}",
                FailureKind.TOOL_ERROR,
                "Check the space under its work folder.",
            )
        status = int(code)
        return ToolAnswer(
            status if status <= 128 else 128 - status, parts["out"], parts["err"], parts.get("ops.csv", "")
        )


def _unwritable(stderr: bytes) -> SessionFailed:
    words = printable(" ".join(stderr.decode("utf-8", "replace").split()), 200)
    return SessionFailed(
        f"the phone cannot keep a session's files: {words or 'no reason told'}",
        FailureKind.TOOL_ERROR,
        "Free space on it, or name another work_folder.",
    )
