"""Where results live: SQLite in one file by default, any SQLAlchemy URL for a lab.

A session is written in one transaction as soon as it ends, so a crash loses at most the one that
was running, and a resumed run finds the rest. A database that restarts in between is waited for.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import sqlalchemy as sa
from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import IntegrityError

from targets.database import Database
from targets.errors import StoreError, printable
from targets.migrations import migrate
from targets.plan import BenchPlan
from targets.records import Environment, OpProfile, SessionRecord

RecordT = TypeVar("RecordT", bound=BaseModel)
DEFAULT_STORE = "inas_results.sqlite"

_tables = sa.MetaData()
_runs = sa.Table(
    "runs",
    _tables,
    *(
        sa.Column(n, sa.Text)
        for n in ("run_id", "kind", "created_at", "finished_at", "plan_sha256", "plan", "environment")
    ),
)
_sessions = sa.Table(
    "sessions",
    _tables,
    *(sa.Column(n, sa.Text) for n in ("session_id", "run_id", "variant_key", "record")),
    sa.Column("position", sa.Integer),
)
_profiles = sa.Table(
    "profiles", _tables, *(sa.Column(n, sa.Text) for n in ("run_id", "variant_key", "record", "failure"))
)


_IDENTITY = {"runs": ("run_id",), "sessions": ("session_id",), "profiles": ("run_id", "variant_key")}


@dataclass(frozen=True)
class StoredRun:
    """One run as the store knows it.

    Attributes:
        run_id: Unique id.
        created_at: Start, UTC.
        finished: Whether everything planned was measured.
        plan: What was planned.
        environment: The machine it began on.
    """

    run_id: str
    created_at: datetime
    finished: bool
    plan: BenchPlan
    environment: Environment


class ResultStore:
    """A store that is open; use it as a context manager.

    Args:
        place: File name, or an SQLAlchemy URL.

    Raises:
        StoreError: If it cannot be opened, is something else, or was written by a newer version.
    """

    def __init__(self, place: str | Path = DEFAULT_STORE) -> None:
        self._database = Database(place)
        self.place = self._database.place
        migrate(self._database)

    def __enter__(self) -> ResultStore:
        """Enter; the store is open already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self._database.close()

    def _rows(self, query: sa.Select[Any]) -> Sequence[sa.RowMapping]:
        return self._database.transact(lambda connection: connection.execute(query).mappings().all())

    def _add(self, table: sa.Table, values: Mapping[str, Any]) -> None:
        """Add a row; that it is there already, with the same content, is no failure: an answer may have been lost."""
        try:
            self._database.transact(lambda connection: connection.execute(sa.insert(table).values(values)), write=True)
        except IntegrityError as error:
            keys = [table.c[name] == values[name] for name in _IDENTITY[table.name]]
            there = self._rows(sa.select(table).where(*keys))
            if not there or any(there[0][name] != value for name, value in values.items()):
                raise StoreError(
                    f"store {self.place}: that session is there already; another bench writes to the same run",
                    "Wait for it to end, or use another --store.",
                ) from error

    def begin(self, plan: BenchPlan, environment: Environment) -> StoredRun:
        """Write down a new run."""
        run = StoredRun(uuid.uuid4().hex, datetime.now(UTC), False, plan, environment)
        values = {
            "run_id": run.run_id,
            "kind": plan.kind,
            "created_at": run.created_at.isoformat(),
            "plan_sha256": plan.sha256(),
            "plan": plan.model_dump_json(),
            "environment": environment.model_dump_json(),
        }
        self._add(_runs, values)
        return run

    def unfinished(self, plan: BenchPlan, environment: Environment) -> StoredRun | None:
        """Newest run of an equal plan that was begun on an equal machine and not finished."""
        query = sa.select(_runs).where(_runs.c.plan_sha256 == plan.sha256(), _runs.c.finished_at.is_(None))
        rows = self._rows(query.order_by(_runs.c.created_at.desc()))
        runs = (self._run_of(row) for row in rows)
        return next((run for run in runs if run.environment == environment), None)

    def runs(self) -> list[StoredRun]:
        """All runs, oldest first."""
        return [self._run_of(row) for row in self._rows(sa.select(_runs).order_by(_runs.c.created_at))]

    def find(self, run_id: str | None) -> StoredRun:
        """The run whose id begins with ``run_id``, or the newest one.

        Raises:
            StoreError: If there is none, or the beginning fits several.
        """
        found = [run for run in self.runs() if run.run_id.startswith(run_id or "")]
        if not found:
            what = f"no run {run_id}" if run_id else "no run at all"
            raise StoreError(f"store {self.place} holds {what}", "List the runs with: inas-deploy report --list")
        if run_id and len(found) > 1:
            raise StoreError(f"{run_id!r} fits {len(found)} runs in {self.place}", "Give more of the id.")
        return found[-1]

    def save_session(self, run_id: str, variant_key: str, session: SessionRecord) -> None:
        """Add one session, whole or not at all; adding the very same one again changes nothing.

        Raises:
            StoreError: If the place is taken by another session.
        """
        values = {
            "session_id": session.session_id,
            "run_id": run_id,
            "variant_key": variant_key,
            "position": session.index,
            "record": session.model_dump_json(),
        }
        self._add(_sessions, values)

    def sessions(self, run_id: str, variant_key: str) -> list[SessionRecord]:
        """Sessions of one variant, by position."""
        query = sa.select(_sessions.c.record).where(
            _sessions.c.run_id == run_id, _sessions.c.variant_key == variant_key
        )
        rows = self._rows(query.order_by(_sessions.c.position))
        return [self._parsed(SessionRecord, row["record"]) for row in rows]

    def save_profile(self, run_id: str, variant_key: str, profile: OpProfile | None, failure: str = "") -> None:
        """Add a variant's per-op profile, or why there is none."""
        record = profile.model_dump_json() if profile else None
        self._add(_profiles, {"run_id": run_id, "variant_key": variant_key, "record": record, "failure": failure})

    def profile(self, run_id: str, variant_key: str) -> tuple[OpProfile | None, str]:
        """A variant's per-op profile if one was taken, and why there is none if that was tried."""
        query = sa.select(_profiles).where(_profiles.c.run_id == run_id, _profiles.c.variant_key == variant_key)
        row = next(iter(self._rows(query)), None)
        if row is None or row["record"] is None:
            return None, row["failure"] if row else ""
        return self._parsed(OpProfile, row["record"]), ""

    def finish(self, run_id: str) -> None:
        """Mark a run as complete; it will not be resumed."""
        done = sa.update(_runs).where(_runs.c.run_id == run_id).values(finished_at=datetime.now(UTC).isoformat())
        self._database.transact(lambda connection: connection.execute(done), write=True)

    def _run_of(self, row: sa.RowMapping) -> StoredRun:
        try:
            created_at = datetime.fromisoformat(row["created_at"])
        except (TypeError, ValueError) as error:
            what = f"store {self.place}: run {printable(str(row['run_id']))} has no readable start ({error})"
            raise StoreError(what, "The file was changed by something else; use another --store.") from error
        return StoredRun(
            run_id=str(row["run_id"]),
            created_at=created_at,
            finished=row["finished_at"] is not None,
            plan=self._parsed(BenchPlan, row["plan"]),
            environment=self._parsed(Environment, row["environment"]),
        )

    def _parsed(self, kind: type[RecordT], text: str) -> RecordT:
        try:
            return kind.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = printable(".".join(str(part) for part in first["loc"]))
            what = f"store {self.place}: a {kind.__name__} cannot be read ({where}: {printable(first['msg'])})"
            raise StoreError(what, "The file was changed by something else; use another --store.") from error
