"""One virtual board and one virtual phone for all tests of devices: a real sshd and a real adbd on loopback."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from targets.errors import DeviceUnavailable
from targets.inventory import Device


@contextmanager
def there_or_skipped() -> Iterator[None]:
    """Skip where this host cannot run the daemon; in CI, which installs it, that is an error."""
    try:
        yield
    except DeviceUnavailable as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    """An ssh device whose server is a real sshd."""
    from targets.virtual.board import VirtualBoard

    running = VirtualBoard(tmp_path_factory.mktemp("board"))
    with there_or_skipped():
        running.__enter__()
    try:
        yield running.device
    finally:
        running.__exit__(None, None, None)


@pytest.fixture(scope="session")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    """An adb device whose daemon is a real adbd that asks for authentication."""
    from targets.virtual.phone import VirtualPhone

    running = VirtualPhone(tmp_path_factory.mktemp("phone"))
    with there_or_skipped():
        running.__enter__()
    try:
        yield running.device
    finally:
        running.__exit__(None, None, None)
