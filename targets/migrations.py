"""How the store's tables came to be: one function a schema version, applied in order.

Add a function at the end; never change one that has been released.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, text

_FIRST = (
    "CREATE TABLE kit_schema (version INTEGER NOT NULL)",
    """CREATE TABLE runs (
        run_id VARCHAR(32) PRIMARY KEY,
        kind VARCHAR(16) NOT NULL,
        created_at VARCHAR(40) NOT NULL,
        finished_at VARCHAR(40),
        plan_sha256 VARCHAR(64) NOT NULL,
        plan TEXT NOT NULL,
        environment TEXT NOT NULL)""",
    """CREATE TABLE sessions (
        session_id VARCHAR(32) PRIMARY KEY,
        run_id VARCHAR(32) NOT NULL REFERENCES runs (run_id),
        variant_key VARCHAR(64) NOT NULL,
        position INTEGER NOT NULL,
        record TEXT NOT NULL,
        UNIQUE (run_id, variant_key, position))""",
    """CREATE TABLE profiles (
        run_id VARCHAR(32) NOT NULL REFERENCES runs (run_id),
        variant_key VARCHAR(64) NOT NULL,
        record TEXT,
        failure TEXT,
        PRIMARY KEY (run_id, variant_key))""",
)


def _first_tables(connection: Connection) -> None:
    for statement in _FIRST:
        connection.execute(text(statement))


MIGRATIONS: tuple[Callable[[Connection], None], ...] = (_first_tables,)
SCHEMA_VERSION = len(MIGRATIONS)
