"""The health check of one device: reached, tools found, disk free, one tiny session timed."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from importlib.resources import as_file, files
from pathlib import Path

from inas_deploy.doctor_software import probe_artifact
from inas_deploy.report.text import clean
from targets.drivers.registry import precisions_of
from targets.errors import FailureKind, KitError, SessionFailed
from targets.health import HealthBook
from targets.inventory import Device
from targets.jobs import Job
from targets.leases.base import Lease, LeaseBook
from targets.opening import Target, open_target
from targets.records import Artifact, Precision, RunSettings, SessionRecord
from targets.statistics import headline_of, session_headline_ms
from targets.tflite_files import tflite_artifact

_SECONDS = 0.2
_LEAST_FREE_MB = 200.0
_HASH = re.compile(r"[0-9a-f]{64}")
Tell = Callable[[str], None]


def check_device(device: Device, lease: Lease | None, tell: Tell) -> None:
    """Use a device once for everything that a bench needs of it.

    Args:
        device: From the inventory.
        lease: A lease on it; ``None`` where it needs none.
        tell: Gets each thing that works, in a line, as soon as it does.

    Raises:
        KitError: What does not work first.
    """
    with open_target(device, lease) as target:
        tell(f"reached over {device.transport}")
        runtime = device.runtime or "onnxruntime"
        versions = target.driver(runtime).versions()
        told = sorted(f"{name} {version}" for name, version in versions.items() if not _HASH.fullmatch(version))
        tell(f"found {', '.join(told)}")
        if device.transport == "replay":
            tell("a recording answers only what was recorded, so no session is tried")
            return
        if device.transport != "simulated":
            tell(f"free disk: {_free_mb(target):,.0f} MB under {target.transport.work_folder}")
        with tempfile.TemporaryDirectory(prefix="inas-check-") as folder:
            session = target.run_session(_tiny_job(device, runtime, Path(folder)))
        tell(f"timed a tiny model: {_figure(session)}")


def _free_mb(target: Target) -> float:
    """Free space where the kit keeps its files; the nearest folder that is there counts.

    Raises:
        SessionFailed: If there is too little, or the device does not tell.
    """
    place = Path(target.transport.work_folder)
    for folder in (place, *place.parents):
        done = target.transport.run(["df", "-Pk", str(folder)], timeout_s=30)
        if done.returncode == 0:
            break
    # POSIX: Filesystem 1024-blocks Used Available Capacity Mounted-on
    found = re.search(rb"\s(\d{1,18})\s+(\d{1,18})\s+(\d{1,18})\s+\d{1,3}%\s", done.stdout)
    if done.returncode != 0 or found is None:
        raise SessionFailed(f"df tells no free space for {place}", FailureKind.TOOL_ERROR, "Check its work folder.")
    free_mb = int(found[3]) / 1024
    if free_mb < _LEAST_FREE_MB:
        what = f"only {free_mb:.0f} MB are free under {place}, and models need {_LEAST_FREE_MB:.0f}"
        raise SessionFailed(what, FailureKind.TOOL_ERROR, "Free some space, or name another work_folder.")
    return free_mb


def _tiny_job(device: Device, runtime: str, folder: Path) -> Job:
    known = precisions_of(device, runtime)
    wanted = device.precision if device.precision in known else None
    settings = RunSettings(
        runtime=runtime,
        precision=wanted or Precision.FP32,
        accelerator=device.accelerator or ("gpu" if runtime == "tensorrt" else "cpu"),
        threads=device.threads or 1,
        pinned_cores=device.pinned_cores,
    )
    artifact = _tiny_tflite(folder) if runtime == "tflite" else probe_artifact(runtime, folder)
    return Job(task="time", artifact=artifact, settings=settings, seconds=_SECONDS)


def _tiny_tflite(folder: Path) -> Artifact:
    """A few convolutions: a phone's timing tool counts whole microseconds, and one node takes less."""
    path = folder / "check.tflite"
    with as_file(files("inas_deploy") / "data" / "check.tflite") as shipped:
        path.write_bytes(shipped.read_bytes())
    return tflite_artifact(path)


def _figure(session: SessionRecord) -> str:
    headline = headline_of([session])
    return f"{headline} {session_headline_ms(session, headline) * 1e3:.3g} us"


def checked(device: Device, book: LeaseBook, health: HealthBook, tell: Tell, *, wait_s: float = 0.0) -> KitError | None:
    """Check one device under its lease, and lift its quarantine where all is well.

    Args:
        device: From the inventory.
        book: Where its lease is.
        health: Where its quarantine stands.
        tell: Gets what works, and what does not, in a line each.
        wait_s: How long to stand in line for it.

    Returns:
        What does not work first; ``None`` where all does.
    """
    try:
        with ExitStack() as stack:
            real = device.label in (None, "virtual")
            lease = stack.enter_context(book.acquire(device.lease_key, wait_s=wait_s)) if real else None
            check_device(device, lease, tell)
    except KitError as error:
        tell(f"failed: {clean(str(error))}")
        return error
    health.release(device.lease_key)
    tell("ok")
    return None
