"""What all tests share: a private cache folder, steady hypothesis settings, and a header that says what is here."""

from __future__ import annotations

import importlib.util
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

# Started in the background of a shell, or by nohup, tests would hand on that these signals are to be ignored.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)

# A shared host stalls at times: a slow example is no failure, and CI tries the same examples every time.
settings.register_profile("kit", deadline=None, derandomize=os.environ.get("CI") == "true")
settings.load_profile("kit")


def pytest_report_header() -> list[str]:
    runtimes = ("onnxruntime", "openvino", "ai_edge_litert", "torch", "litert_torch")
    there = [name for name in runtimes if importlib.util.find_spec(name)]
    data = Path(os.environ.get("INAS_DATA", ROOT.parent / "shared" / "data"))
    return [f"installed: {', '.join(there)}", f"INAS_DATA: {data} ({'there' if data.is_dir() else 'absent'})"]


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Exports made by a test never land in, or come from, the person's own cache.

    Tests that run at the same time share exports, and no leases: each has this machine for itself.
    """
    cache = tmp_path_factory.mktemp("cache")
    if "PYTEST_XDIST_WORKER" in os.environ:  # a worker's folder lies in the run's
        exports = tmp_path_factory.getbasetemp().parent / "exports"
        exports.mkdir(exist_ok=True)
        (cache / "inas_deploy").symlink_to(exports)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest file, whose commands run one after the other: with two workers it would end alone."""
    items.sort(key=lambda item: item.path.name != "test_readme.py")
