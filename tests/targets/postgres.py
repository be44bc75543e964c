"""One PostgreSQL for all tests that need it; where there is none they skip, and CI installs one."""

import pytest

from benchmarks.postgres import PostgresServer, find_binaries


@pytest.fixture(scope="session")
def postgres():
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'inas-deploy[lab]'")
    if find_binaries() is None:
        pytest.skip("no PostgreSQL server is installed: apt-get install postgresql")
    with PostgresServer() as server:
        yield server


def fresh_database(server, name):
    """URL of a new, empty database of a server."""
    server.execute(f'CREATE DATABASE "{name}"')
    return server.url.rpartition("/")[0] + f"/{name}"
