"""Whether a virtual board and a virtual phone can be started on this machine; namespaces are tried."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator

from inas_deploy.doctor_checks import Check
from targets.errors import SessionFailed
from targets.transports.local import LocalTransport

_PLACES = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin:/bin"
_NAMESPACES = ("--user", "--map-root-user", "--mount", "--net", "--pid", "--ipc", "--fork")
_TRY_TIMEOUT_S = 20.0


def virtual_checks() -> Iterator[Check]:
    """What ``inas-deploy devices add --virtual`` board and phone need."""
    yield _board()
    yield _phone()


def _place(program: str) -> str | None:
    return shutil.which(program) or shutil.which(program, path=_PLACES)


def _board() -> Check:
    away = [name for name in ("sshd", "ssh-keygen") if _place(name) is None]
    if away:
        fix = "sudo apt-get install openssh-server"
        return Check(area="virtual", name="board", status="missing", detail=f"no {' and no '.join(away)}", fix=fix)
    return Check(area="virtual", name="board", status="ok", detail=f"{_place('sshd')} is there")


def _phone() -> Check:
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        detail = f"runs on Linux x86_64 only, and this is {platform.system()} {platform.machine()}"
        return Check(area="virtual", name="phone", status="missing", detail=detail)
    away = [name for name in ("unshare", "chroot", "apt-get", "dpkg-deb") if _place(name) is None]
    if away:
        fix = "Install util-linux and coreutils; apt-get and dpkg-deb fetch adbd once."
        return Check(area="virtual", name="phone", status="missing", detail=f"no {' and no '.join(away)}", fix=fix)
    with LocalTransport() as here:
        try:
            done = here.run([str(_place("unshare")), *_NAMESPACES, "true"], timeout_s=_TRY_TIMEOUT_S)
            why = done.stderr.decode(errors="replace").strip()[:200] if done.returncode != 0 else ""
            refused = done.returncode != 0
        except SessionFailed as error:
            why, refused = error.what, True
    if refused:
        detail = " ".join(f"user namespaces are refused: {why}".split())
        fix = "sudo sysctl kernel.unprivileged_userns_clone=1; in a container, allow it to unshare and to mount."
        return Check(area="virtual", name="phone", status="missing", detail=detail, fix=fix)
    return Check(area="virtual", name="phone", status="ok", detail="user namespaces work; adbd is fetched once by apt")
