"""What a phone's shell is asked to do: short scripts for any POSIX shell with toybox or coreutils beside it.

adb-shell speaks the first shell protocol, which has one stream and no exit status, so a script keeps both streams in
files and sends their lengths before their bytes: nothing that a command prints can be taken for the script's own words.
Each command gets a session of its own and a guard beside it, which kills everything the command started as soon as the
connection ends (adbd then hangs up the script's terminal) or a last deadline passes. A guard that has not got as far as
its session when the command is over has no group yet, so it is ended by its own number first, and by its group's then.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

STALE_MINUTES = 2
"""Age after which a half-made file or folder of another connection counts as left behind."""

_GUARD = """
T=$1 D=$2 W=$3
end() {
    kill -9 "$W"
    [ -s "$D/group" ] && kill -s KILL -- -"$(cat "$D/group")"
    for i in 1 2 3; do
        for e in $(grep -ls "INAS_RUN=$T" /proc/[0-9]*/environ); do p=${e%/environ}; kill -9 "${p#/proc/}"; done
    done
    rm -rf "$D"
    kill -9 0
}
( sleep "$4"; end ) &
cat >/dev/null
end
"""

_RUN = """
T=@TOKEN@ D=@FOLDER@ N=@LIMIT@ S=
exec 3<&0 5>&1 2>/dev/null
mkdir -p "$D" && echo $$ >"$D/wrapper" && : >>"$D/in" || { rm -rf "$D"; echo "$T folder"; exit; }
P=@PROGRAM@
( @EXPORTS@ case $P in */*) [ -f "$P" ] && [ -x "$P" ];; *) command -v "$P";; esac ) >/dev/null ||
    { rm -rf "$D"; echo "$T program"; exit; }
command -v setsid >/dev/null && S=setsid
$S sh -c @GUARD@ guard "$T" "$D" $$ @GUARD_S@ <&3 >/dev/null 3<&- 5>&- &
g=$!
run() {
    ( @EXPORTS@ exec $S @COMMAND@ ) <"$D/in" 2>&4 3<&- 4>&- 5>&- &
    p=$!
    echo $p >"$D/group"
    exec >/dev/null 4>&-
    wait $p
    echo "$T status $?" >&5
    kill -s KILL -- -$p
}
{ run 4>&1 1>&6 6>&- | head -c $N >"$D/err" || echo "$T full" >&5; } 6>&1 | head -c $N >"$D/out" || echo "$T full"
o=$(wc -c <"$D/out") e=$(wc -c <"$D/err")
echo "$T end $((o)) $((e))"
cat "$D/out" "$D/err"
rm -rf "$D"
kill -9 $g
[ "$S" ] && kill -s KILL -- -$g
"""

_SETTLE = """
exec 2>/dev/null
W=@WORK@
end() {
    g=$(cat "$1/group")
    [ "$g" ] && grep -qs "INAS_RUN=$2" "/proc/$g/environ" && kill -s KILL -- -"$g"
    for i in 1 2 3; do
        for e in $(grep -ls "INAS_RUN=$2" /proc/[0-9]*/environ); do p=${e%/environ}; kill -9 "${p#/proc/}"; done
    done
    rm -rf "$1"
}
for T in @TOKENS@; do
    w=$(cat "$W/run-$T/wrapper")
    [ "$w" ] && grep -qs "$T" "/proc/$w/cmdline" && kill -9 "$w"
    end "$W/run-$T" "$T"
done
for D in "$W"/run-*; do
    [ -d "$D" ] && [ ! -L "$D" ] || continue
    T=${D##*/run-}
    case $T in *[!0-9a-f]*) continue;; esac
    w=$(cat "$D/wrapper")
    if [ "$w" ]; then grep -qs "$T" "/proc/$w/cmdline" && continue
    else [ "$(find "$D" -maxdepth 0 -mmin +@STALE@)" ] || continue; fi
    end "$D" "$T"
done
find "$W" -maxdepth 1 -type f -name 'push-*' -mmin +@STALE@ -exec rm -f {} ';'
for f in @FILES@; do rm -f -- "$f"; done
echo settled
"""

_PREPARE = """
exec 2>&1
[ -d @TARGET@ ] && { echo folder; exit; }
mkdir -p @PARENT@ && mkdir -p @TEMPORARY_PARENT@ || { echo refused; exit; }
[ -w @PARENT@ ] || { echo "no right to write there"; echo refused; exit; }
df -k @PARENT@
echo ready
"""

_PLACE = """
if command -v sha256sum >/dev/null 2>&1; then h=$(sha256sum <@TEMPORARY@); else h=@TRUSTED@; fi
case $h in
    @SHA256@*) mv -f @TEMPORARY@ @TARGET@ 2>&1 && { echo placed; exit; } ;;
    '') echo nosum; exit ;;
    *) echo differs ;;
esac
rm -f @TEMPORARY@
"""

_DESCRIBE = """
f=@TARGET@
[ -e "$f" ] || [ -L "$f" ] || { echo absent; exit; }
[ -f "$f" ] || { echo special; exit; }
[ -r "$f" ] || { echo unreadable; exit; }
echo size $(wc -c <"$f")
command -v sha256sum >/dev/null 2>&1 && echo sum $(sha256sum <"$f")
echo told
"""

_REMOVE = """
exec 2>&1
w=$(cd -P @WORK@ 2>/dev/null && pwd -P) || { echo removed; exit; }
p=$(cd -P @PARENT@ 2>/dev/null && pwd -P) || { echo removed; exit; }
case $p/ in "$w"/*) ;; *) echo elsewhere; exit;; esac
rm -rf -- "$p"/@NAME@ && echo removed
"""


@dataclass(frozen=True)
class Answer:
    """What came back of a command.

    Attributes:
        problem: ``""``, or what kept the command from running or its output from being kept: ``folder``, ``program``,
            ``full``, ``cut`` (the answer is not whole).
        status: Exit status as a shell tells it.
        stdout: Its output.
        stderr: Its complaints.
    """

    problem: str
    status: int = 0
    stdout: bytes = b""
    stderr: bytes = b""


def run_script(
    token: str, work_folder: str, argv: Sequence[str], env: Mapping[str, str], limit: int, guard_s: int
) -> str:
    """The script that runs one command.

    Args:
        token: Random hexadecimal digits, the run's name.
        work_folder: Absolute; the run's folder is made in it. Standard input is ``run-TOKEN/in`` there, if it exists.
        argv: Program and arguments.
        env: Variables; the names must have been checked.
        limit: Bytes kept of each stream.
        guard_s: Seconds after which the phone itself ends the command, whatever became of us.
    """
    exports = "".join(f"export {name}={shlex.quote(value)};" for name, value in {**env, "INAS_RUN": token}.items())
    return _filled(
        _RUN,
        TOKEN=token,
        FOLDER=shlex.quote(f"{work_folder}/run-{token}"),
        LIMIT=str(limit),
        GUARD=shlex.quote(_GUARD),
        GUARD_S=str(guard_s),
        EXPORTS=exports,
        PROGRAM=shlex.quote(argv[0]),
        COMMAND=shlex.join(argv),
    )


def read_answer(token: str, data: bytes) -> Answer:
    """Read what :func:`run_script` sent back.

    Args:
        token: The run's name.
        data: All that came.
    """
    status: int | None = None
    own = token.encode()
    while True:
        line, newline, rest = data.partition(b"\n")
        words = line.split()
        if not newline or not words or words[0] != own or len(words) < 2:
            return Answer("cut")
        data = rest
        if words[1] in (b"folder", b"program", b"full"):
            return Answer(words[1].decode())
        numbers = [int(word) for word in words[2:] if re.fullmatch(rb"\d{1,12}", word)]
        if words[1] == b"status" and len(numbers) == 1:
            status = numbers[0]
        elif words[1] == b"end" and len(numbers) == 2 and status is not None:
            break
        else:
            return Answer("cut")
    out, err = numbers
    if len(data) != out + err:
        return Answer("cut")
    return Answer("", status, data[:out], data[out:])


def settle_script(work_folder: str, tokens: Sequence[str], files: Sequence[str]) -> str:
    """End and remove what is left: of these runs at once, of others where nobody is behind them; prints ``settled``."""
    words = " ".join(shlex.quote(name) for name in files)
    return _filled(
        _SETTLE, WORK=shlex.quote(work_folder), TOKENS=" ".join(tokens), FILES=words, STALE=str(STALE_MINUTES)
    )


def prepare_script(target: str, temporary: str) -> str:
    """Make the folders of a push; prints ``folder``, ``refused``, or what ``df -k`` says and ``ready``."""
    return _filled(
        _PREPARE,
        TARGET=shlex.quote(target),
        PARENT=shlex.quote(parent_of(target)),
        TEMPORARY_PARENT=shlex.quote(parent_of(temporary)),
    )


def place_script(temporary: str, target: str, sha256: str, *, trusted: bool = False) -> str:
    """Compare a pushed file's checksum and move it into place.

    Prints ``placed``, ``differs``, or ``nosum`` where the phone has no ``sha256sum`` and ``trusted`` is not set.
    """
    return _filled(
        _PLACE,
        TEMPORARY=shlex.quote(temporary),
        TARGET=shlex.quote(target),
        SHA256=sha256,
        TRUSTED=sha256 if trusted else "",
    )


def describe_script(target: str) -> str:
    """Tell ``absent``, ``special``, ``unreadable``, or ``size N``, ``sum SHA256`` where possible, and ``told``."""
    return _filled(_DESCRIBE, TARGET=shlex.quote(target))


def remove_script(work_folder: str, target: str) -> str:
    """Remove a path, unless its folder really lies elsewhere; prints ``removed`` or ``elsewhere``."""
    name = shlex.quote(target.rpartition("/")[2])
    return _filled(_REMOVE, WORK=shlex.quote(work_folder), PARENT=shlex.quote(parent_of(target)), NAME=name)


def parent_of(path: str) -> str:
    """Folder of an absolute path."""
    return path.rpartition("/")[0] or "/"


def _filled(script: str, **values: str) -> str:
    """Put values in place of ``@NAME@``, in one pass: what a value holds is not looked at again."""
    return re.sub(r"@([A-Z0-9_]+)@", lambda found: values[found[1]], script)
