"""Where results live: SQLite in one file by default, any SQLAlchemy URL for a lab.

A session is written in one transaction as soon as it ends, so a crash loses at most the one that
was running, and a resumed run finds the rest.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import sqlalchemy as sa
from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from targets.errors import StoreError
from targets.migrations import MIGRATIONS, SCHEMA_VERSION
from targets.plan import BenchPlan
from targets.records import Environment, OpProfile, SessionRecord

RecordT = TypeVar("RecordT", bound=BaseModel)
DEFAULT_STORE = "inas_results.sqlite"

_tables = sa.MetaData()
_schema = sa.Table("kit_schema", _tables, sa.Column("version", sa.Integer))
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


def _url(place: str) -> sa.URL:
    if "://" in place:
        try:
            return sa.make_url(place)
        except sa.exc.ArgumentError as error:
            raise StoreError(
                f"store {place!r} is not a database URL", "Give a file name or an SQLAlchemy URL."
            ) from error
    path = Path(place)
    if path.is_dir():
        raise StoreError(f"store {place} is a folder", "Name a file in it.")
    if not path.absolute().parent.is_dir():
        raise StoreError(f"store {place}: its folder does not exist", "Make the folder first, or name another place.")
    return sa.URL.create("sqlite", database=str(path))


class ResultStore:
    """A store that is open; use it as a context manager.

    Args:
        place: File name, or an SQLAlchemy URL.

    Raises:
        StoreError: If it cannot be opened, is something else, or was written by a newer version.
    """

    def __init__(self, place: str | Path = DEFAULT_STORE) -> None:
        url = _url(str(place))
        self.place = url.render_as_string(hide_password=True) if "://" in str(place) else str(place)
        sqlite = url.get_backend_name() == "sqlite"
        arguments: dict[str, Any] = {"timeout": 30.0, "isolation_level": None} if sqlite else {}
        try:
            self._engine = sa.create_engine(url, connect_args=arguments)
        except (SQLAlchemyError, ImportError) as error:
            raise StoreError(f"store {self.place}: {_short(error)}", "Install the database's driver.") from error
        self._migrate()

    def __enter__(self) -> ResultStore:
        """Enter; the store is open already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self, *, write: bool = False) -> Iterator[sa.Connection]:
        try:
            with self._engine.begin() as connection:
                if self._engine.dialect.name == "sqlite":
                    # Said by us, because Python's driver would leave CREATE TABLE outside the transaction.
                    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
                yield connection
        except IntegrityError as error:
            raise StoreError(
                f"store {self.place}: that session is there already; another bench writes to the same run",
                "Wait for it to end, or use another --store.",
            ) from error
        except SQLAlchemyError as error:
            raise StoreError(
                f"store {self.place}: {_short(error)}", "Use another --store, or repair this one."
            ) from error

    def _migrate(self) -> None:
        with self._transaction() as connection:
            version = self._version(connection)
        if version == SCHEMA_VERSION:
            return
        with self._transaction(write=True) as connection:
            # Asked again under the lock: another process may have been faster.
            for step in MIGRATIONS[self._version(connection) :]:
                step(connection)
            connection.execute(sa.delete(_schema))
            connection.execute(sa.insert(_schema).values(version=SCHEMA_VERSION))

    def _version(self, connection: sa.Connection) -> int:
        there = set(sa.inspect(connection).get_table_names())
        if there and _schema.name not in there:
            raise StoreError(f"store {self.place} is a database of something else", "Name another file.")
        version = connection.execute(sa.select(_schema.c.version)).scalar_one() if there else 0
        if not isinstance(version, int) or version < 0:
            raise StoreError(f"store {self.place} has the schema version {version!r}", "Use another --store.")
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"store {self.place} has schema {version} and this version of the kit knows up to {SCHEMA_VERSION}",
                "Upgrade inas-deploy, or use another --store.",
            )
        return version

    def begin(self, plan: BenchPlan, environment: Environment) -> StoredRun:
        """Write down a new run."""
        run = StoredRun(uuid.uuid4().hex, datetime.now(UTC), False, plan, environment)
        with self._transaction(write=True) as connection:
            connection.execute(
                sa.insert(_runs).values(
                    run_id=run.run_id,
                    kind=plan.kind,
                    created_at=run.created_at.isoformat(),
                    plan_sha256=plan.sha256(),
                    plan=plan.model_dump_json(),
                    environment=environment.model_dump_json(),
                )
            )
        return run

    def unfinished(self, plan: BenchPlan, environment: Environment) -> StoredRun | None:
        """Newest run of an equal plan that was begun on an equal machine and not finished."""
        with self._transaction() as connection:
            query = sa.select(_runs).where(_runs.c.plan_sha256 == plan.sha256(), _runs.c.finished_at.is_(None))
            rows = connection.execute(query.order_by(_runs.c.created_at.desc())).mappings().all()
        runs = (self._run_of(row) for row in rows)
        return next((run for run in runs if run.environment == environment), None)

    def runs(self) -> list[StoredRun]:
        """All runs, oldest first."""
        with self._transaction() as connection:
            rows = connection.execute(sa.select(_runs).order_by(_runs.c.created_at)).mappings().all()
        return [self._run_of(row) for row in rows]

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
        """Add one session, whole or not at all."""
        with self._transaction(write=True) as connection:
            connection.execute(
                sa.insert(_sessions).values(
                    session_id=session.session_id,
                    run_id=run_id,
                    variant_key=variant_key,
                    position=session.index,
                    record=session.model_dump_json(),
                )
            )

    def sessions(self, run_id: str, variant_key: str) -> list[SessionRecord]:
        """Sessions of one variant, by position."""
        query = sa.select(_sessions.c.record).where(
            _sessions.c.run_id == run_id, _sessions.c.variant_key == variant_key
        )
        with self._transaction() as connection:
            records = connection.execute(query.order_by(_sessions.c.position)).scalars().all()
        return [self._parsed(SessionRecord, record) for record in records]

    def save_profile(self, run_id: str, variant_key: str, profile: OpProfile | None, failure: str = "") -> None:
        """Add a variant's per-op profile, or why there is none."""
        with self._transaction(write=True) as connection:
            record = profile.model_dump_json() if profile else None
            values = {"run_id": run_id, "variant_key": variant_key, "record": record, "failure": failure}
            connection.execute(sa.insert(_profiles).values(values))

    def profile(self, run_id: str, variant_key: str) -> tuple[OpProfile | None, str]:
        """A variant's per-op profile if one was taken, and why there is none if that was tried."""
        query = sa.select(_profiles).where(_profiles.c.run_id == run_id, _profiles.c.variant_key == variant_key)
        with self._transaction() as connection:
            row = connection.execute(query).mappings().first()
        if row is None or row["record"] is None:
            return None, row["failure"] if row else ""
        return self._parsed(OpProfile, row["record"]), ""

    def finish(self, run_id: str) -> None:
        """Mark a run as complete; it will not be resumed."""
        with self._transaction(write=True) as connection:
            statement = sa.update(_runs).where(_runs.c.run_id == run_id)
            connection.execute(statement.values(finished_at=datetime.now(UTC).isoformat()))

    def _run_of(self, row: sa.RowMapping) -> StoredRun:
        try:
            created_at = datetime.fromisoformat(row["created_at"])
        except (TypeError, ValueError) as error:
            what = f"store {self.place}: run {row['run_id']} has no readable start ({error})"
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
            where = ".".join(str(part) for part in first["loc"])
            what = f"store {self.place}: a {kind.__name__} cannot be read ({where}: {first['msg']})"
            raise StoreError(what, "The file was changed by something else; use another --store.") from error


def _short(error: BaseException) -> str:
    cause: Any = getattr(error, "orig", None) or error
    return json.dumps(str(cause).splitlines()[0] if str(cause) else type(cause).__name__)
