"""Fixtures of the pytest plugin; :mod:`inas_deploy.pytest_plugin` registers them."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

    from inas_deploy.hardware_tests import Measured
    from targets.opening import Target


def make_fixtures() -> ModuleType:
    """The fixtures, made here so that this file can be imported without pytest; in a module, as pytest wants them."""
    import pytest

    @pytest.fixture
    def target(request: pytest.FixtureRequest) -> Iterator[Target]:
        """An open device: the one the marker asks for, else the one ``--device`` names, else this machine."""
        from inas_deploy.hardware_tests import open_for

        with open_for(request.node, getattr(request, "param", None)) as opened:
            yield opened

    @pytest.fixture(scope="session")
    def measure_store(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> str:
        """Where sessions are kept: ``--measure-store``, else a temporary file."""
        place = pytestconfig.getoption("inas_store")
        return str(place or tmp_path_factory.mktemp("inas") / "measured.sqlite")

    @pytest.fixture
    def measured(request: pytest.FixtureRequest, target: Target, measure_store: str) -> Measured:
        """Measures on ``target``: ``measured("net.onnx")``, ``measured.compare(a, b)``, ``measured.gate(b)``."""
        from inas_deploy.hardware_tests import Measured

        return Measured(target, measure_store, request.node)

    made = ModuleType(f"{__name__}.made")
    vars(made).update(target=target, measure_store=measure_store, measured=measured)
    return made
