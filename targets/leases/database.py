"""Leases as rows of a PostgreSQL database, for a lab of several hosts; its clock is the only one that counts."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError

from targets.database import PATIENCE_S, Database
from targets.errors import StoreError, UsageError, printable
from targets.leases.base import LEASE_S
from targets.leases.book import Book, ResultT, Step
from targets.leases.ledger import Ledger, Moment
from targets.migrations import migrate

_LEDGER = TypeAdapter(Ledger)
_CLAIM = ("claim_id", "holder", "process", "taken_at", "expires_at")

_tables = sa.MetaData()
_leases = sa.Table(
    "leases",
    _tables,
    sa.Column("lease_key", sa.Text, primary_key=True),
    sa.Column("token", sa.BigInteger),
    *(sa.Column(name, sa.Text) for name in _CLAIM[:3]),
    *(sa.Column(name, sa.Float(53)) for name in _CLAIM[3:]),
)
_line = sa.Table(
    "lease_line",
    _tables,
    sa.Column("lease_key", sa.Text),
    sa.Column("position", sa.BigInteger),
    *(sa.Column(name, sa.Text) for name in _CLAIM[:3]),
    *(sa.Column(name, sa.Float(53)) for name in _CLAIM[3:]),
)
# The clock at this very moment: now() stands still from the transaction's start, which may lie before a wait for a row.
_clock = sa.select(sa.extract("epoch", sa.func.clock_timestamp()).cast(sa.Float(53)))


class DatabaseLeases(Book):
    """A :class:`targets.leases.base.LeaseBook` in a PostgreSQL database.

    Args:
        url: ``postgresql://USER:PASSWORD@HOST/DATABASE``; may be the store of results as well.
        lease_s: Seconds after which a lease that is not renewed is anybody's; the same for the whole lab.
        poll_s: Seconds after which the first in line looks again.

    Raises:
        UsageError: If the URL is that of another system.
        StoreError: If the database cannot be reached or holds something else.
        MissingExtra: If the driver is not installed.
    """

    def __init__(self, url: str, *, lease_s: float = LEASE_S, poll_s: float = 0.2) -> None:
        super().__init__(lease_s, poll_s)
        self._database = Database(url)
        if self._database.kind != "postgresql":
            raise UsageError(f"{self._database.place} cannot keep leases", "Name a PostgreSQL database.")
        migrate(self._database)

    def change(self, key: str, step: Step[ResultT], *, patience_s: float = PATIENCE_S) -> ResultT:
        """Change one device's ledger while its row is locked.

        Raises:
            KitError: If the database refuses, or stays away.
        """

        def work(connection: sa.Connection) -> ResultT:
            before, position = _load(connection, key)
            ledger = before.copy()
            result = step(ledger, _now(connection))
            _save(connection, key, before, ledger, position)
            return result

        try:
            return self._database.transact(work, write=True, patience_s=patience_s)
        except IntegrityError as error:
            what = f"store {self._database.place}: {self._database.short(error)}"
            raise StoreError(what, "The tables of leases were changed by something else.") from error

    def ledgers(self) -> list[tuple[str, Ledger, Moment]]:
        """All ledgers with the time.

        Raises:
            KitError: If the database cannot be read.
        """

        def work(connection: sa.Connection) -> list[tuple[str, Ledger, Moment]]:
            now = _now(connection)
            lines: dict[str, list[dict[str, Any]]] = {}
            for row in connection.execute(sa.select(_line).order_by(_line.c.position)).mappings():
                lines.setdefault(row["lease_key"], []).append(_claim(row))
            rows = connection.execute(sa.select(_leases)).mappings()
            return [(row["lease_key"], _ledger(row, lines.get(row["lease_key"], [])), now) for row in rows]

        return self._database.transact(work)

    def close(self) -> None:
        """Close the connections; leases that are still held open new ones to be renewed."""
        self._database.close()


def _now(connection: sa.Connection) -> Moment:
    seconds = connection.execute(_clock).scalar_one()
    return Moment(seconds, seconds)


def _claim(row: sa.RowMapping) -> dict[str, Any]:
    return {name: row[name] for name in _CLAIM}


def _ledger(row: sa.RowMapping, line: list[dict[str, Any]]) -> Ledger:
    """A ledger from its rows, which anybody of the lab can write.

    Raises:
        StoreError: If they hold what no keeper of leases writes.
    """
    held = _claim(row) if row["claim_id"] else None
    try:
        return _LEDGER.validate_python({"token": row["token"], "held": held, "line": line})
    except ValidationError as error:
        what = f"the lease of {printable(row['lease_key'])} cannot be read"
        raise StoreError(what, "Delete its rows from the tables leases and lease_line of the database.") from error


def _load(connection: sa.Connection, key: str) -> tuple[Ledger, int]:
    """A ledger, its row locked until the transaction ends, and the last position in its line."""
    locked = sa.select(_leases).where(_leases.c.lease_key == key).with_for_update()
    row = connection.execute(locked).mappings().one_or_none()
    if row is None:
        connection.execute(insert(_leases).values(lease_key=key, token=0).on_conflict_do_nothing())
        row = connection.execute(locked).mappings().one()
    query = sa.select(_line).where(_line.c.lease_key == key).order_by(_line.c.position)
    waiting = connection.execute(query).mappings().all()
    return _ledger(row, [_claim(one) for one in waiting]), (waiting[-1]["position"] or 0) if waiting else 0


def _save(connection: sa.Connection, key: str, before: Ledger, after: Ledger, position: int) -> None:
    if (after.token, after.held) != (before.token, before.held):
        held: dict[str, Any] = asdict(after.held) if after.held else dict.fromkeys(_CLAIM)
        row = sa.update(_leases).where(_leases.c.lease_key == key)
        connection.execute(row.values(token=after.token, **held))
    was = {claim.claim_id: claim for claim in before.line}
    now = {claim.claim_id: claim for claim in after.line}
    for claim_id in was.keys() - now.keys():
        connection.execute(sa.delete(_line).where(_line.c.claim_id == claim_id))
    for claim_id, claim in now.items():
        if claim_id not in was:
            position += 1
            connection.execute(sa.insert(_line).values(lease_key=key, position=position, **asdict(claim)))
        elif claim != was[claim_id]:
            row = sa.update(_line).where(_line.c.claim_id == claim_id)
            connection.execute(row.values(expires_at=claim.expires_at))
