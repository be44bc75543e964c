"""pytest plugin: tests that run a network on a device of the inventory are ordinary tests.

Fixtures ``target`` (an open device) and ``measured`` (measures on it), and the marker ``device("android")``, which
skips with the reason where no such device can be had. Importing this module imports nothing else of the kit: a test
run that uses neither pays for nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

MARKER = (
    "device(name): run on a device with this name or tag; skips with the reason where there is none, or where it is "
    "quarantined, in use or out of reach."
)
PROPERTY = "inas."
"""Begins the name of every property this plugin gives to a test, as JUnit files show them."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the plugin."""
    group = parser.getgroup("inas-deploy", "networks measured on devices")
    group.addoption(
        "--device",
        dest="inas_device",
        action="append",
        default=[],
        metavar="NAME|TAG",
        help="Run tests that use a device on this one only. Repeatable: on each.",
    )
    group.addoption(
        "--devices", dest="inas_devices", metavar="FILE", help="Inventory; ./devices.toml by default, if it is there."
    )
    group.addoption(
        "--baseline", dest="inas_baseline", metavar="FILE", help="Result that measured.gate() holds models against."
    )
    group.addoption(
        "--measure-store",
        dest="inas_store",
        metavar="FILE|URL",
        help="Keep what tests measure; a lab's database URL shares its leases too. By default a temporary file.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker and the fixtures known."""
    config.addinivalue_line("markers", MARKER)
    from inas_deploy.pytest_fixtures import make_fixtures

    config.pluginmanager.register(make_fixtures(), "inas-deploy-fixtures")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse a ``--device`` that nothing is called as what it is: a mistake on the command line."""
    if session.config.getoption("inas_device"):
        from inas_deploy.hardware_tests import check_options

        check_options(session.config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """With ``--device``, run a test that uses ``target`` once on each device that was named."""
    only = metafunc.config.getoption("inas_device")
    if only and "target" in metafunc.fixturenames:
        from inas_deploy.hardware_tests import named_devices

        names = named_devices(metafunc.config, metafunc.definition.get_closest_marker("device"))
        if names:
            metafunc.parametrize("target", names, indirect=True)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a marked test that does not use ``target`` where its device cannot be had."""
    marker = item.get_closest_marker("device")
    if marker is not None and "target" not in getattr(item, "fixturenames", ()):
        from inas_deploy.hardware_tests import check_device

        check_device(item)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say which devices were used, and in plain words which of them are stand-ins."""
    reports = [report for found in terminalreporter.stats.values() for report in found]
    ended = [dict(r.user_properties) for r in reports if getattr(r, "when", None) == "teardown"]
    used = [properties for properties in ended if f"{PROPERTY}device" in properties]
    if not used:
        return
    terminalreporter.section("devices")
    for name in sorted({properties[f"{PROPERTY}device"] for properties in used}):
        mine = [properties for properties in used if properties[f"{PROPERTY}device"] == name]
        kinds = sorted({str(p[f"{PROPERTY}stand_in"]) for p in mine if f"{PROPERTY}stand_in" in p})
        label = f" (STAND-IN: {', '.join(kinds)})" if kinds else ""
        verdicts = [str(value) for p in mine for key, value in p.items() if key.startswith(f"{PROPERTY}verdict")]
        weak = sum(not verdict.startswith("valid") for verdict in verdicts)
        line = f"{name}{label}: {len(mine)} tests, {len(verdicts)} measurements, {weak} of them weak"
        terminalreporter.write_line(line)
