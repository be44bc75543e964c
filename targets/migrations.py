"""How the store's tables came to be: one function a schema version, applied in order.

Add a function at the end; never change one that has been released.
"""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa
from sqlalchemy import Connection, text

from targets.database import Database
from targets.errors import StoreError

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

# Times are seconds since 1970 on the database's own clock.
_SECOND = (
    """CREATE TABLE leases (
        lease_key VARCHAR(300) PRIMARY KEY,
        token BIGINT NOT NULL,
        claim_id VARCHAR(32),
        holder VARCHAR(200),
        process VARCHAR(200),
        taken_at DOUBLE PRECISION,
        expires_at DOUBLE PRECISION)""",
    """CREATE TABLE lease_line (
        claim_id VARCHAR(32) PRIMARY KEY,
        lease_key VARCHAR(300) NOT NULL REFERENCES leases (lease_key),
        position BIGINT NOT NULL,
        holder VARCHAR(200) NOT NULL,
        process VARCHAR(200) NOT NULL,
        taken_at DOUBLE PRECISION NOT NULL,
        expires_at DOUBLE PRECISION NOT NULL)""",
    "CREATE INDEX lease_line_order ON lease_line (lease_key, position)",
    """CREATE TABLE device_health (
        device_key VARCHAR(300) PRIMARY KEY,
        failures INTEGER NOT NULL,
        kind VARCHAR(32) NOT NULL,
        reason VARCHAR(500) NOT NULL,
        failed_at VARCHAR(40) NOT NULL,
        quarantined_at VARCHAR(40))""",
)


def _first_tables(connection: Connection) -> None:
    for statement in _FIRST:
        connection.execute(text(statement))


def _tables_of_a_lab(connection: Connection) -> None:
    for statement in _SECOND:
        connection.execute(text(statement))


MIGRATIONS: tuple[Callable[[Connection], None], ...] = (_first_tables, _tables_of_a_lab)
SCHEMA_VERSION = len(MIGRATIONS)

_schema = sa.Table("kit_schema", sa.MetaData(), sa.Column("version", sa.Integer))


def migrate(database: Database) -> None:
    """Bring a store to this version's tables, an empty one included.

    Raises:
        StoreError: If it cannot be reached, is something else, or was written by a newer version.
    """

    def version(connection: Connection) -> int:
        return _version(database, connection)

    def upgrade(connection: Connection) -> None:
        database.lock_for_migration(connection)
        # Asked again under the lock: another process may have been faster.
        for step in MIGRATIONS[version(connection) :]:
            step(connection)
        connection.execute(sa.delete(_schema))
        connection.execute(sa.insert(_schema).values(version=SCHEMA_VERSION))

    if database.transact(version) != SCHEMA_VERSION:
        database.transact(upgrade, write=True)


def _version(database: Database, connection: Connection) -> int:
    place = database.place
    there = set(sa.inspect(connection).get_table_names())
    if there and _schema.name not in there:
        other = "Name another file." if database.kind == "sqlite" else "Name another database."
        raise StoreError(f"store {place} is a database of something else", other)
    version = connection.execute(sa.select(_schema.c.version)).scalar_one() if there else 0
    if not isinstance(version, int) or version < 0:
        raise StoreError(f"store {place} has the schema version {version!r}", "Use another --store.")
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"store {place} has schema {version} and this version of the kit knows up to {SCHEMA_VERSION}",
            "Upgrade inas-deploy, or use another --store.",
        )
    return version
