"""Which devices are worth asking: failures in a row put one into quarantine until a check of it succeeds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.exc import IntegrityError

from targets.database import PATIENCE_S, Database, is_shared
from targets.errors import DeviceUnavailable, FailureKind, StoreError, printable
from targets.leases.locked import LockedFiles, damaged, state_folder
from targets.migrations import migrate

QUARANTINE_AFTER = 3
"""Failures in a row, with no success between them, that put a device into quarantine."""

COUNTED = frozenset({FailureKind.LOST_DEVICE, FailureKind.TIMEOUT, FailureKind.TOOL_ERROR})
"""Failures that speak against the device; a bad artifact or one that needs too much memory does not."""


@dataclass(frozen=True)
class HealthState:
    """What is known of a device that failed since it last succeeded.

    Attributes:
        key: :attr:`targets.inventory.Device.lease_key`.
        failures: Failures in a row.
        kind: Class of the last one.
        reason: The last one in a line.
        failed_at: When that was, UTC.
        quarantined_at: Since when the device is not used any more; ``None`` while it still is.
    """

    key: str
    failures: int
    kind: FailureKind
    reason: str
    failed_at: datetime
    quarantined_at: datetime | None = None


class HealthBook(Protocol):
    """Keeps the health of the devices of one host or one lab."""

    def record_failure(self, key: str, kind: FailureKind, reason: str) -> HealthState | None:
        """Count a failure, where it speaks against the device.

        Args:
            key: :attr:`targets.inventory.Device.lease_key`.
            kind: Class of the failure.
            reason: What went wrong; cut and made printable.

        Returns:
            The device's state; ``None`` for one that has not failed since it last succeeded.
        """

    def record_success(self, key: str) -> None:
        """Forget the failures of a device that is still in use; a quarantined one stays so until it is released."""

    def check(self, key: str, name: str) -> None:
        """Refuse a device in quarantine.

        Args:
            key: :attr:`targets.inventory.Device.lease_key`.
            name: The device's name, for the message.

        Raises:
            DeviceUnavailable: With the reason, and how to lift the quarantine.
        """

    def release(self, key: str) -> None:
        """Forget all failures and lift the quarantine, after a check of the device that succeeded."""

    def states(self) -> list[HealthState]:
        """Devices that failed since they last succeeded, quarantined or not."""


class _Rules(ABC):
    """What both books share: when a failure counts, and what a refusal says."""

    @abstractmethod
    def _read(self, key: str) -> HealthState | None: ...

    def check(self, key: str, name: str) -> None:
        """Refuse a device in quarantine; see :meth:`HealthBook.check`."""
        state = self._read(key)
        if state is None or state.quarantined_at is None:
            return
        what = (
            f"{name} has been in quarantine since {state.quarantined_at:%Y-%m-%d %H:%M} UTC, "
            f"after {state.failures} failures in a row, the last one: {printable(state.reason, 400)}"
        )
        raise DeviceUnavailable(what, f"Mend it and lift the quarantine with: inas-deploy devices check {name}")

    @staticmethod
    def _failed(before: HealthState | None, key: str, kind: FailureKind, reason: str) -> HealthState | None:
        if kind not in COUNTED:
            return before
        now = datetime.now(UTC)
        failures = before.failures + 1 if before else 1
        since = before.quarantined_at if before else None
        if since is None and failures >= QUARANTINE_AFTER:
            since = now
        return HealthState(key, failures, kind, printable(" ".join(reason.split()), 400), now, since)


_STATE = TypeAdapter(HealthState)


class FileHealth(_Rules):
    """A :class:`HealthBook` in small files of one user on one host.

    Args:
        folder: Only this user's; made where it is missing.

    Raises:
        UsageError: If the folder cannot be made, or others may write to it.
    """

    def __init__(self, folder: Path) -> None:
        self._files = LockedFiles(folder)

    def record_failure(self, key: str, kind: FailureKind, reason: str) -> HealthState | None:
        """See :class:`HealthBook`."""
        with self._files.changing(key, PATIENCE_S) as content:
            after = self._failed(self._state(content), key, kind, reason)
            if after is not None:
                content["health"] = _STATE.dump_python(after, mode="json")
            return after

    def record_success(self, key: str) -> None:
        """See :class:`HealthBook`."""
        with self._files.changing(key, PATIENCE_S) as content:
            state = self._state(content)
            if state is not None and state.quarantined_at is None:
                content["health"] = None

    def release(self, key: str) -> None:
        """See :class:`HealthBook`."""
        with self._files.changing(key, PATIENCE_S) as content:
            if content:
                content["health"] = None

    def states(self) -> list[HealthState]:
        """See :class:`HealthBook`."""
        found = (self._state(content) for _, content in self._files.contents())
        return sorted((state for state in found if state), key=lambda state: state.key)

    def _read(self, key: str) -> HealthState | None:
        with self._files.changing(key, PATIENCE_S) as content:
            return self._state(content)

    def _state(self, content: dict[str, Any]) -> HealthState | None:
        if content.get("health") is None:
            return None
        try:
            return _STATE.validate_python(content["health"])
        except ValidationError as error:
            raise damaged(self._files.folder) from error


_table = sa.Table(
    "device_health",
    sa.MetaData(),
    sa.Column("device_key", sa.Text, primary_key=True),
    sa.Column("failures", sa.Integer),
    *(sa.Column(name, sa.Text) for name in ("kind", "reason", "failed_at", "quarantined_at")),
)


class DatabaseHealth(_Rules):
    """A :class:`HealthBook` in the database of a lab.

    Args:
        url: SQLAlchemy URL; may be the store of results as well.

    Raises:
        StoreError: If the database cannot be reached or holds something else.
        MissingExtra: If the driver is not installed.
    """

    def __init__(self, url: str) -> None:
        self._database = Database(url)
        migrate(self._database)

    def record_failure(self, key: str, kind: FailureKind, reason: str) -> HealthState | None:
        """See :class:`HealthBook`. Counted once more where the database restarts and its answer is lost."""

        def work(connection: sa.Connection) -> HealthState | None:
            before = _select(connection, key, lock=True)
            after = self._failed(before, key, kind, reason)
            if after is None or after is before:
                return after
            values = _row(after)
            change = sa.update(_table).where(_table.c.device_key == key) if before else sa.insert(_table)
            connection.execute(change.values(values))
            return after

        try:
            return self._database.transact(work, write=True)
        except IntegrityError:  # another host wrote the device's first failure at the same time: now it is the second
            return self._database.transact(work, write=True)

    def record_success(self, key: str) -> None:
        """See :class:`HealthBook`."""
        self._delete(_table.c.device_key == key, _table.c.quarantined_at.is_(None))

    def release(self, key: str) -> None:
        """See :class:`HealthBook`."""
        self._delete(_table.c.device_key == key)

    def states(self) -> list[HealthState]:
        """See :class:`HealthBook`."""
        query = sa.select(_table).order_by(_table.c.device_key)
        rows = self._database.transact(lambda connection: connection.execute(query).mappings().all())
        return [_state(row) for row in rows]

    def _read(self, key: str) -> HealthState | None:
        return self._database.transact(lambda connection: _select(connection, key))

    def _delete(self, *where: sa.ColumnElement[bool]) -> None:
        statement = sa.delete(_table).where(*where)
        self._database.transact(lambda connection: connection.execute(statement), write=True)


def _select(connection: sa.Connection, key: str, *, lock: bool = False) -> HealthState | None:
    query = sa.select(_table).where(_table.c.device_key == key)
    row = connection.execute(query.with_for_update() if lock else query).mappings().one_or_none()
    return _state(row) if row else None


def _state(row: sa.RowMapping) -> HealthState:
    try:
        return _STATE.validate_python({**row, "key": row["device_key"]})
    except ValidationError as error:
        raise StoreError("a row of device_health cannot be read", "Delete it from the database.") from error


def _row(state: HealthState) -> dict[str, Any]:
    since = state.quarantined_at
    return {
        "device_key": state.key,
        "failures": state.failures,
        "kind": state.kind.value,
        "reason": state.reason,
        "failed_at": state.failed_at.isoformat(),
        "quarantined_at": since.isoformat() if since else None,
    }


def open_health(store: str | Path) -> HealthBook:
    """The book of health for whoever uses a store.

    Args:
        store: A PostgreSQL URL, whose users then share it; for anything else, files of this user on this host.

    Raises:
        KitError: If the book cannot be opened.
    """
    return DatabaseHealth(str(store)) if is_shared(store) else FileHealth(state_folder("health"))
