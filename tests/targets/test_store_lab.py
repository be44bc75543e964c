"""The store of a lab: a real PostgreSQL that restarts, answers that are lost, drivers that are missing."""

import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from targets.environment import capture_environment
from targets.errors import MissingExtra, StoreError
from targets.migrations import MIGRATIONS
from targets.plan import BenchPlan
from targets.store import ResultStore
from tests.targets.making import session, variant
from tests.targets.postgres import fresh_database

ROOT = Path(__file__).resolve().parents[2]
PLAN = BenchPlan(variants=(variant("A"),), sessions=3, seconds=0.1)


def test_what_is_saved_comes_back_equal(postgres):
    with ResultStore(fresh_database(postgres, "store")) as store:
        run = store.begin(PLAN, capture_environment())
        saved = [session(i) for i in range(3)]
        for one in reversed(saved):
            store.save_session(run.run_id, "k", one)
        store.save_profile(run.run_id, "k", None, "the reason")
        assert store.sessions(run.run_id, "k") == saved
        assert store.profile(run.run_id, "k") == (None, "the reason")
        assert store.unfinished(PLAN, capture_environment()).run_id == run.run_id
        store.finish(run.run_id)
        assert store.find(run.run_id[:6]).finished
        assert "***" in store.place


def test_restarts_in_the_middle_lose_and_double_nothing(postgres):
    stop = threading.Event()
    saved = []
    with ResultStore(fresh_database(postgres, "restarts")) as store:
        run = store.begin(PLAN, capture_environment())

        def save():
            while not stop.is_set():
                one = session(len(saved))
                store.save_session(run.run_id, "k", one)
                saved.append(one)

        thread = threading.Thread(target=save)
        thread.start()
        for _ in range(2):
            before = len(saved)
            while len(saved) < before + 20 and thread.is_alive():
                time.sleep(0.01)
            postgres.stop()
            postgres.start()
        stop.set()
        thread.join(120)
        assert len(saved) >= 40
        assert store.sessions(run.run_id, "k") == saved


def test_an_answer_that_was_lost_after_the_commit_is_no_failure(postgres, monkeypatch):
    with ResultStore(fresh_database(postgres, "answers")) as store:
        run = store.begin(PLAN, capture_environment())
        lose_after_commit(store, monkeypatch)
        store.save_session(run.run_id, "k", session(0))
        lose_after_commit(store, monkeypatch)
        store.finish(run.run_id)
        lose_after_commit(store, monkeypatch)
        second = store.begin(PLAN, capture_environment())
        assert store.sessions(run.run_id, "k") == [session(0)]
        assert [r.run_id for r in store.runs()] == [run.run_id, second.run_id]


def lose_after_commit(store, monkeypatch):
    """The next commit succeeds, and the connection breaks before the client hears of it."""
    engine = store._database._engine
    real = engine.dialect.do_commit

    def commit_and_break(connection):
        real(connection)
        monkeypatch.setattr(engine.dialect, "do_commit", real)
        connection.dbapi_connection.close()
        raise engine.dialect.dbapi.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(engine.dialect, "do_commit", commit_and_break)


@pytest.mark.parametrize("changed", ["position", "record"])
def test_the_same_id_with_other_content_is_refused(tmp_path, changed):
    with ResultStore(tmp_path / "results.sqlite") as store:
        run = store.begin(PLAN, capture_environment())
        first = session(0)
        store.save_session(run.run_id, "k", first)
        store.save_session(run.run_id, "k", first)
        other = first.model_copy(update={"index": 1} if changed == "position" else {"load_ms": 9.0})
        with pytest.raises(StoreError, match="there already"):
            store.save_session(run.run_id, "k", other)
        assert store.sessions(run.run_id, "k") == [first]


def test_many_processes_may_open_a_new_database_at_once(postgres):
    code = "import sys; from targets.store import ResultStore; ResultStore(sys.argv[1])"
    url = fresh_database(postgres, "openers")
    openers = [subprocess.Popen([sys.executable, "-c", code, url], cwd=ROOT) for _ in range(4)]
    assert [opener.wait(120) for opener in openers] == [0] * 4


def test_a_database_that_cannot_be_reached_is_told_at_once(postgres):
    started = time.monotonic()
    with pytest.raises(StoreError, match=r"nowhere.* does not exist.*Check that the database runs"):
        ResultStore(postgres.url.rpartition("/")[0] + "/nowhere")
    with pytest.raises(StoreError, match="Connection refused"):
        ResultStore("postgresql://lab@127.0.0.1:1/x")
    assert time.monotonic() - started < 30


def test_a_missing_driver_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtra, match=r"pip install 'inas-deploy\[lab\]'"):
        ResultStore("postgresql://lab:hunter2@127.0.0.1:1/x")


def test_a_store_of_the_first_version_is_brought_up_to_date(tmp_path):
    place = tmp_path / "results.sqlite"
    with sa.create_engine(f"sqlite:///{place}").begin() as connection:
        MIGRATIONS[0](connection)
        connection.execute(sa.text("INSERT INTO kit_schema VALUES (1)"))
        connection.execute(
            sa.text("INSERT INTO runs VALUES ('r', 'bench', '2026-01-01T00:00:00+00:00', NULL, 'x', :plan, :env)"),
            {"plan": PLAN.model_dump_json(), "env": capture_environment().model_dump_json()},
        )
    with ResultStore(place) as store:
        assert [run.run_id for run in store.runs()] == ["r"]
    with sqlite3.connect(place) as raw:
        names = {name for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert {"leases", "lease_line", "device_health"} < names
