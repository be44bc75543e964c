"""Install a wheel in a clean environment, away from the checkout, and use it as a stranger would.

Usage: python .ci/smoke.py dist/NAME.whl
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

CONSTRAINTS = Path(__file__).resolve().parent.parent / "constraints.txt"
PACKAGES = {"inas_deploy", "targets", "search", "training"}
MUST_SHIP = (
    "inas_deploy/data/csnet-x1.onnx",
    "inas_deploy/py.typed",
    "inas_deploy/report/template.html.j2",
    "search/py.typed",
    "targets/py.typed",
    "training/py.typed",
)
MUST_NOT_BE_THERE = ("torch", "openvino", "ai_edge_litert", "litert_torch", "benchmarks", "tests")


def check_contents(wheel: Path) -> None:
    """Refuse a wheel that lacks package data, or holds more than the four packages."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    alien = sorted(top for top in tops - PACKAGES if not top.endswith(".dist-info"))
    missing = [name for name in MUST_SHIP if name not in names]
    missing += [
        f"*.dist-info/licenses/{name}" for name in ("LICENSE", "NOTICE") if not _ends(names, f"licenses/{name}")
    ]
    if alien or missing:
        sys.exit(f"error: {wheel.name} holds {alien or 'nothing'} it should not, and lacks {missing or 'nothing'}")
    print(f"{wheel.name}: {len(names)} files, {wheel.stat().st_size / 1e6:.2f} MB", flush=True)


def _ends(names: list[str], tail: str) -> bool:
    return any(name.endswith(tail) for name in names)


def run(*command: str, cwd: Path) -> str:
    """Run a command to its end and hand back what it printed; a failure ends this script."""
    print("$", " ".join(command), flush=True)
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "INAS_", "VIRTUAL_ENV"))}
    clean["XDG_CACHE_HOME"] = str(cwd / "cache")
    done = subprocess.run(command, cwd=cwd, env=clean, stdout=subprocess.PIPE, text=True, timeout=600, check=False)
    if done.returncode != 0:
        sys.exit(f"error: exit {done.returncode} from {' '.join(command)}\n{done.stdout}")
    return done.stdout


def use(wheel: Path, folder: Path) -> None:
    """Install the wheel with its base dependencies and run every command that needs no extra."""
    venv.create(folder / "env", with_pip=True)
    binaries = folder / "env" / "bin"
    python, kit = str(binaries / "python"), str(binaries / "inas-deploy")
    run(python, "-m", "pip", "install", "--quiet", "-c", str(CONSTRAINTS), str(wheel), cwd=folder)
    run(python, "-m", "pip", "check", cwd=folder)
    found = run(
        python,
        "-c",
        f"import importlib.util as u; print([n for n in {MUST_NOT_BE_THERE!r} if u.find_spec(n)])",
        cwd=folder,
    )
    if found.strip() != "[]":
        sys.exit(f"error: the clean environment holds {found.strip()}")
    run(kit, "--help", cwd=folder)
    run(kit, "devices", cwd=folder)
    json.loads(run(kit, "doctor", "--json", cwd=folder))
    bench = json.loads(run(kit, "bench", "--sessions", "3", "--seconds", "0.3", "--json", cwd=folder))
    stats = bench["measurements"][0]["stats"]
    if not (stats["sessions"] == 3 and 0.0 < stats["min_ms"] <= stats["p10_ms"] <= stats["p50_ms"]):
        sys.exit(f"error: no believable latency in {stats}")
    print(f"csnet-x1 from the wheel: p10 {stats['p10_ms']:.3f} ms over {stats['sessions']} sessions", flush=True)


def main() -> None:
    """Check one wheel."""
    wheel = Path(sys.argv[1]).resolve()
    check_contents(wheel)
    with tempfile.TemporaryDirectory() as folder:
        use(wheel, Path(folder))


if __name__ == "__main__":
    main()
