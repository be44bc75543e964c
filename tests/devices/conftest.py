"""One virtual board and one virtual phone for all tests of devices: a real sshd and a real adbd on loopback."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from targets.inventory import Device


@pytest.fixture(scope="session")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    """An ssh device whose server is a real sshd."""
    from targets.virtual.board import VirtualBoard

    with VirtualBoard(tmp_path_factory.mktemp("board")) as running:
        yield running.device


@pytest.fixture(scope="session")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    """An adb device whose daemon is a real adbd that asks for authentication."""
    from targets.virtual.phone import VirtualPhone

    with VirtualPhone(tmp_path_factory.mktemp("phone")) as running:
        yield running.device
