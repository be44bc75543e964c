"""What keeps a device clean over ``ssh``: a shell on it that ends every command of ours that outlives its caller.

The guard is one POSIX shell for each connection. It waits on its standard input, which costs no processor time, and
each command leaves its process group's number where the guard finds it. Told that a command is over, or when its
input ends because the connection did, it ends the groups. Should the network fall silent without an end, a sleeping
helper beside the command ends it a while after its own deadline.
"""

from __future__ import annotations

import math
import re
import secrets
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from targets.errors import DeviceUnavailable, UsageError, printable

MAX_COMMAND_BYTES = 120_000  # Linux takes no single argument of 128 KiB or more
_OVERTIME_S = 30  # after this much more than its deadline a command ends itself
_ANSWER_S = 10.0
_MAX_REPORT_BYTES = 8192
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

# Field 3 after the name in /proc/PID/stat is the process group, field 20 the start time: with it, a number that was
# given to another process since is not mistaken for ours.
_IDENTITY = """
fields() { group=$3 start=${20}; }
identify() {
  group= start= line=
  { read -r line < "/proc/$1/stat"; } 2>/dev/null || return 0
  fields ${line##*) }
}
"""

_GUARD = (
    _IDENTITY
    + """
umask 077
trap '' HUP INT TERM PIPE
work=$1 token=$2
[ -n "$work" ] || work=$HOME/.cache/inas-deploy
mkdir -p -- "$work" || exit 1
ours_alone() { [ "$3" = "$(id -u)" ] && case $1 in ????????w*) false ;; esac; }
if ! ours_alone $(ls -ldn -- "$work/."); then
  printf '%s belongs to another user, or anybody may write there\\n' "$work" >&2
  exit 1
fi
boot=
{ read -r boot < /proc/sys/kernel/random/boot_id; } 2>/dev/null
boot=${boot%%-*}
end_group() {
  identify "$1"
  if [ -z "$start" ] || [ "$start" = "$2" ]; then kill -s KILL -- "-$1" 2>/dev/null; fi
}
end_all() {
  for file in "$1"/c-*; do
    [ -e "$file" ] || continue
    mark=${file##*/c-} mark=${mark#*-}
    end_group "${mark%%-*}" "${mark#*-}"
  done
}
for old in "$work"/.run-*; do
  [ -d "$old" ] || continue
  mark=${old##*/.run-} mark=${mark#*-}
  pid=${mark%%-*} mark=${mark#*-}
  if [ "${mark#*-}" = "$boot" ]; then
    identify "$pid"
    if [ -n "$start" ] && [ "$start" = "${mark%%-*}" ]; then continue; fi
    if [ -z "$start" ] && kill -0 "$pid" 2>/dev/null; then continue; fi
    end_all "$old"
  fi
  rm -rf -- "$old"
done
identify $$
run=$work/.run-$token-$$-$start-$boot
mkdir -- "$run" && printf '' > "$run/open" || exit 1
printf 'ready %s\\n' "$run"
while read -r verb number; do
  found=
  for file in "$run/c-$number-"*; do
    [ -e "$file" ] || continue
    found=1 mark=${file##*/c-} mark=${mark#*-}
    end_group "${mark%%-*}" "${mark#*-}"
    rm -f -- "$file"
  done
  [ -n "$found" ] || printf '' > "$run/x-$number"
  printf 'ended %s\\n' "$number"
done
rm -f -- "$run/open"
end_all "$run"
rm -rf -- "$run"
"""
)

# A server that gives a command no process group of its own is helped with setsid.
_COMMAND = (
    _IDENTITY
    + """
identify $$
if [ -n "$group" ] && [ "$group" != $$ ]; then exec setsid sh -c "$INAS_START" sh "$@"; fi
run=$1 number=$2 limit=$3
shift 3
if ! printf '' > "$run/c-$number-$$-$start"; then printf '%s unregistered\\n' "$number" >&2; exit 125; fi
if [ ! -e "$run/open" ] || [ -e "$run/x-$number" ]; then exit 125; fi
( (sleep "$limit"; kill -s KILL -- "-$$") </dev/null >/dev/null 2>&1 & )
unset INAS_START
while [ "$1" != -- ]; do export "$1"; shift; done
shift
why=
case $1 in
  */*) if [ ! -e "$1" ]; then why=absent; elif [ -d "$1" ] || [ ! -x "$1" ]; then why=forbidden; fi ;;
  *) command -v -- "$1" >/dev/null || why=absent ;;
esac
if [ -n "$why" ]; then printf '%s %s\\n' "$number" "$why" >&2; exit 127; fi
exec "$@"
"""
)


def new_number() -> str:
    """A name for one command, which nobody can guess: what the command prints cannot pass for the starter's words."""
    return secrets.token_hex(8)


def guard_line(work_folder: str | None, token: str) -> bytes:
    """The command line that starts a guard.

    Args:
        work_folder: Folder for the kit's files; ``None`` for ``~/.cache/inas-deploy``.
        token: Name of this connection.
    """
    return _encode(shlex.join(["exec", "sh", "-c", _GUARD, "sh", work_folder or "", token]))


def command_line(
    run_folder: str, number: str, argv: Sequence[str], env: Mapping[str, str] | None, timeout_s: float
) -> bytes:
    """The command line that starts a program under a guard.

    Args:
        run_folder: The guard's own folder.
        number: From :func:`new_number`.
        argv: Program and arguments.
        env: Variables for it.
        timeout_s: Its deadline, after which it is ended even where nobody is left to say so.

    Raises:
        UsageError: If a variable has no proper name, something holds a NUL character, or it is all too long.
    """
    variables = dict(env or {})
    for name in variables:
        if not _VARIABLE.fullmatch(name):
            raise UsageError(f"'{printable(name)}' is no name of a variable", "Use letters, digits and '_'.")
    if not argv or not argv[0] or any("\0" in word for word in (*argv, *variables.values())):
        raise UsageError("the command to run is empty or holds a NUL character", "Name a program.")
    limit = str(math.ceil(min(timeout_s, 10**8)) + _OVERTIME_S)
    settings = [f"{name}={value}" for name, value in variables.items()]
    boot = ["env", f"INAS_START={_COMMAND}", "sh", "-c", 'exec sh -c "$INAS_START" sh "$@"', "sh"]
    line = _encode(shlex.join(["exec", *boot, run_folder, number, limit, *settings, "--", *argv]))
    if len(line) > MAX_COMMAND_BYTES:
        raise UsageError(
            f"the command for '{printable(argv[0])}' is longer than {MAX_COMMAND_BYTES} bytes",
            "Hand long text over as input.",
        )
    return line


def refusal(number: str, stderr: bytes) -> str | None:
    """Why a command could not be started, if this is what its starter said: a word or two, or ``None``."""
    words = {"absent": "No such file or directory", "forbidden": "Permission denied"}
    last = stderr.rstrip(b"\n").rpartition(b"\n")[2].decode("ascii", "replace")
    name, _, why = last.partition(" ")
    if name != number:
        return None
    complaint = printable(stderr.partition(b"\n")[0])
    return words.get(why, f"the device's work folder cannot be written ({complaint})")


class Guard:
    """The guard of one connection.

    Args:
        channel: An open session on the connection.
        work_folder: As for :func:`guard_line`.
        timeout_s: Deadline for its first answer, seconds.

    Attributes:
        run_folder: Its own folder on the device.
        work_folder: The work folder it found or made there.

    Raises:
        DeviceUnavailable: If it does not start; its complaint is quoted.
    """

    def __init__(self, channel: Any, work_folder: str | None, timeout_s: float) -> None:
        self._channel = channel
        self._rest = b""
        token = secrets.token_hex(8)
        channel.settimeout(timeout_s)
        channel.exec_command(guard_line(work_folder, token))
        try:
            answer = self._line()
        except EOFError:
            if channel.recv_exit_status() < 0:  # no status: it was the connection that ended
                raise
            answer = b""
        folder, _, name = answer.removeprefix(b"ready ").decode("utf-8", "surrogateescape").rpartition("/")
        if not answer.startswith(b"ready /") or not name.startswith(f".run-{token}-") or not folder.isprintable():
            raise DeviceUnavailable(self._complaint(answer), "Check the account's shell and the folder's permissions.")
        self.run_folder, self.work_folder = f"{folder}/{name}", folder
        channel.settimeout(_ANSWER_S)

    def end(self, number: str) -> None:
        """End what is left of a command, and wait until that is done.

        Raises:
            OSError: If the guard does not answer in time.
            EOFError: If it is gone.
        """
        self._channel.sendall(f"end {number}\n".encode())
        while (answer := self._line()) != f"ended {number}".encode():
            if not answer.startswith(b"ended "):
                raise EOFError("the guard says what it should not")

    def leave(self) -> None:
        """Let the guard clear up and end, and wait for that.

        Raises:
            OSError: If it does not end in time.
        """
        self._channel.shutdown_write()
        while self._channel.recv(4096):
            pass

    def _line(self) -> bytes:
        while b"\n" not in self._rest:
            data = self._channel.recv(4096)
            self._rest += data
            if not data or len(self._rest) > _MAX_REPORT_BYTES:
                line, self._rest = self._rest, b""
                if not line:
                    raise EOFError("the guard is gone")
                return line
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _complaint(self, answer: bytes) -> str:
        said = answer or self._channel.recv_stderr(_MAX_REPORT_BYTES)
        return f"cannot start a shell in its work folder there: {printable(said.strip() or b'no word about why')}"


def _encode(line: str) -> bytes:
    return line.encode("utf-8", "surrogateescape")
