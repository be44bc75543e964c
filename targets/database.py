"""A database that may be away for a while: opened by URL, asked in transactions that are tried again.

A transaction whose answer was lost may have been committed. Whatever is handed to :meth:`Database.transact`
therefore has to give the same result when it is done twice.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, SQLAlchemyError

from targets import extras
from targets.errors import StoreError, printable

ResultT = TypeVar("ResultT")

PATIENCE_S = 60.0
"""How long a transaction is tried again while the database is away, seconds."""

# One statement may wait this long for a row; a client that was stopped inside a transaction lets go of its rows after
# the second. Sent with each transaction and not when connecting, where connection poolers refuse options.
_BOUNDS = "SET LOCAL lock_timeout = '5s'; SET LOCAL idle_in_transaction_session_timeout = '10s'"
_MIGRATION_LOCK = 0x696E6173  # any constant: it names the lock that openers of a new store stand in line for
# PostgreSQL's classes: connection, shutdown and start, serialization, lock not available, too many connections.
_PASSING_STATES = ("08", "57P", "40", "55P03", "53300")
_PASSING_TEXTS = ("the database system is", "too many clients", "remaining connection slots")
# User and password of a URL, also of one whose slashes or scheme are missing.
_PASSWORD_PART = r"(^[^/@:]*(?=:(?!/))|/[^/@:]*):(.*)@"
_POSTGRESQL = re.compile(r"\s*postgres(ql)?(\+\w+)?\s*:", re.IGNORECASE)
_CONNECT = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "application_name": "inas-deploy",
}


class Database:
    """A database that is open; connections are made when needed and made anew when lost.

    Args:
        place: File name of an SQLite database, or an SQLAlchemy URL.

    Raises:
        StoreError: If the place is no file that can be and no URL.
        MissingExtra: If the driver for PostgreSQL is not installed.
    """

    def __init__(self, place: str | Path) -> None:
        url = _url(str(place))
        self.place = safe_place(str(place))
        self._secrets = _secrets(str(place), url)
        self._was_reached = False
        try:
            self._engine = sa.create_engine(url, **_engine_options(url))
        except (SQLAlchemyError, ImportError) as error:
            raise StoreError(f"store {self.place}: {self.short(error)}", "Install the database's driver.") from error

    @property
    def kind(self) -> str:
        """Name of the database system: ``sqlite``, ``postgresql``, ..."""
        return self._engine.dialect.name

    def transact(
        self, work: Callable[[sa.Connection], ResultT], *, write: bool = False, patience_s: float = PATIENCE_S
    ) -> ResultT:
        """Do something in one transaction, again and again while the database is away.

        Args:
            work: Done twice, it has to give the same as done once.
            write: Whether it writes: SQLite then takes its lock at the beginning.
            patience_s: How long to try again. A database that was never reached is not waited for.

        Raises:
            IntegrityError: As the database raises it, for the caller to judge.
            StoreError: If the database refuses, or stays away.
        """
        deadline = time.monotonic() + patience_s
        pause_s = 0.05
        while True:
            try:
                result = self._once(work, write)
            except IntegrityError:
                raise
            except SQLAlchemyError as error:
                if not self._passes(error) or time.monotonic() + pause_s > deadline:
                    raise self._refusal(error) from error
            else:
                self._was_reached = True
                return result
            time.sleep(pause_s * random.uniform(0.5, 1.5))
            pause_s = min(2 * pause_s, 1.0)

    def _once(self, work: Callable[[sa.Connection], ResultT], write: bool) -> ResultT:
        with self._engine.begin() as connection:
            if self.kind == "sqlite":
                # Said by us, because Python's driver would leave CREATE TABLE outside the transaction.
                connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
            elif self.kind == "postgresql":
                connection.exec_driver_sql(_BOUNDS)
            return work(connection)

    def _passes(self, error: SQLAlchemyError) -> bool:
        """Whether trying again can help."""
        if self.kind == "sqlite" or not isinstance(error, DBAPIError):
            return isinstance(error, sa.exc.TimeoutError)
        state = getattr(error.orig, "sqlstate", None)
        if state:
            return str(state).startswith(_PASSING_STATES)
        if any(text in str(error.orig) for text in _PASSING_TEXTS):
            return True
        # Without a state the connection was lost or refused. A wrong address or password looks the same: that is
        # told apart by whether the database ever answered.
        return self._was_reached and (error.connection_invalidated or isinstance(error, OperationalError))

    def _refusal(self, error: SQLAlchemyError) -> StoreError:
        fix = "Use another --store, or repair this one."
        if self.kind != "sqlite":
            fix = "Check that the database runs and that address, user and password are right."
        return StoreError(f"store {self.place}: {self.short(error)}", fix)

    def lock_for_migration(self, connection: sa.Connection) -> None:
        """Let one opener at a time change tables; SQLite's lock on writing does that by itself."""
        if self.kind == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))

    def short(self, error: BaseException) -> str:
        """One quoted line of an error, without the password."""
        cause: Any = getattr(error, "orig", None) or error
        text = (str(cause).splitlines() or [""])[0] or type(cause).__name__
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return json.dumps(printable(text, 300))

    def close(self) -> None:
        """Close the connections; the next question opens one again."""
        self._engine.dispose()


def _engine_options(url: sa.URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": 30.0, "isolation_level": None}}
    options: dict[str, Any] = {"pool_size": 1, "max_overflow": 9}
    if url.get_backend_name() == "postgresql" and url.get_driver_name() == "psycopg":
        extras.require("psycopg", "lab")
        options["connect_args"] = {key: value for key, value in _CONNECT.items() if key not in url.query}
    return options


def _url(place: str) -> sa.URL:
    if "://" in place:
        try:
            url = sa.make_url(place)
        except (sa.exc.ArgumentError, ValueError):
            # Not chained: SQLAlchemy quotes the whole text, password included.
            fix = "Give a file name or an SQLAlchemy URL."
            raise StoreError(f"store {safe_place(place)!r} is not a database URL", fix) from None
        driver = url.drivername.lower()
        return url.set(drivername="postgresql+psycopg" if driver in {"postgresql", "postgres"} else driver)
    if _POSTGRESQL.match(place):
        fix = "Write postgresql://USER@HOST/DATABASE, with both slashes."
        raise StoreError(f"store {safe_place(place)!r} is not a database URL", fix)
    path = Path(place)
    shown = safe_place(place)
    if path.is_dir():
        raise StoreError(f"store {shown} is a folder", "Name a file in it.")
    if not path.absolute().parent.is_dir():
        raise StoreError(f"store {shown}: its folder does not exist", "Make the folder first, or name another place.")
    return sa.URL.create("sqlite", database=str(path))


def _secrets(place: str, url: sa.URL) -> list[str]:
    """What no message may hold: the password, and where an unquoted ``@`` or ``/`` split it, its longer pieces."""
    raw = re.search(_PASSWORD_PART, place)
    pieces = re.split("[/@:]", raw[2]) if raw else []
    known = [str(url.password or ""), *(str(url.query.get(name, "")) for name in ("password", "sslpassword"))]
    return sorted({text for text in known if text} | {text for text in pieces if len(text) > 3}, key=len, reverse=True)


def safe_place(place: str) -> str:
    """A store's name as it may be printed: passwords are starred, also in a URL with a slip in it."""
    starred = re.sub(_PASSWORD_PART, r"\1:***@", place)
    return re.sub(r"(?i)((?:password|passfile|sslkey|sslpassword)=)[^&\s]*", r"\1***", starred)


def is_shared(store: str | Path) -> bool:
    """Whether a store is one that several hosts can share: a PostgreSQL URL, or what was meant to be one."""
    return _POSTGRESQL.match(str(store)) is not None
