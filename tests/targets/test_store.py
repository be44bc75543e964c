import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from targets.environment import capture_environment
from targets.errors import StoreError
from targets.migrations import MIGRATIONS, SCHEMA_VERSION
from targets.plan import BenchPlan
from targets.records import OpProfile
from targets.store import ResultStore
from tests.targets.making import session, variant

ROOT = Path(__file__).resolve().parents[2]
PLAN = BenchPlan(variants=(variant("A"), variant("B")), sessions=3, seconds=0.1)
PROFILE = OpProfile(
    runtime="onnxruntime",
    ops=(),
    runs=1,
    unprofiled_us=1,
    profiled_us=1,
    sum_us=1,
    residual_share=0,
    attributed_share=0,
    layout_share=0,
)


@pytest.fixture
def store(tmp_path):
    with ResultStore(tmp_path / "results.sqlite") as opened:
        yield opened


def test_what_is_saved_comes_back_equal(store):
    run = store.begin(PLAN, capture_environment())
    key = PLAN.variants[0].key
    saved = [session(i, name="x") for i in range(3)]
    for one in reversed(saved):
        store.save_session(run.run_id, key, one)
    store.save_profile(run.run_id, key, PROFILE)
    with ResultStore(store.place) as again:
        assert again.sessions(run.run_id, key) == saved
        assert again.profile(run.run_id, key) == (PROFILE, "")
        assert again.find(run.run_id[:6]).plan == PLAN


def test_a_position_is_filled_once(store):
    run = store.begin(PLAN, capture_environment())
    store.save_session(run.run_id, "k", session(0, name="first"))
    with pytest.raises(StoreError, match="there already"):
        store.save_session(run.run_id, "k", session(0, name="second"))
    assert [s.session_id for s in store.sessions(run.run_id, "k")] == ["first0"]


def test_unfinished_finds_only_equal_plans_that_are_not_done(store):
    here = capture_environment()
    elsewhere = here.model_copy(update={"cpu_model": "another"})
    assert store.unfinished(PLAN, here) is None
    run = store.begin(PLAN, here)
    other = PLAN.model_copy(update={"seconds": 0.2})
    assert store.unfinished(PLAN, here).run_id == run.run_id
    assert store.unfinished(other, here) is None
    assert store.unfinished(PLAN, elsewhere) is None
    store.finish(run.run_id)
    assert store.unfinished(PLAN, here) is None


def test_why_a_profile_is_missing_is_kept(store):
    run = store.begin(PLAN, capture_environment())
    assert store.profile(run.run_id, "k") == (None, "")
    store.save_profile(run.run_id, "k", None, "the reason")
    assert store.profile(run.run_id, "k") == (None, "the reason")


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE kit_schema SET version = 'x'",
        "UPDATE runs SET created_at = 'yesterday'",
        "UPDATE runs SET plan = '{}'",
        "UPDATE sessions SET record = replace(record, '\"samples_ns\":[', '\"samples_ns\":[-5,')",
        "DELETE FROM kit_schema",
    ],
)
def test_a_damaged_store_is_refused_in_one_line(store, damage):
    run = store.begin(PLAN, capture_environment())
    store.save_session(run.run_id, "k", session(0))
    with sqlite3.connect(store.place) as raw:
        raw.execute(damage)
    with pytest.raises(StoreError) as error:
        ResultStore(store.place).runs()
        store.sessions(run.run_id, "k")
    assert "\n" not in str(error.value)


def test_newer_schema_is_refused_and_left_alone(store, tmp_path):
    with sqlite3.connect(store.place) as raw:
        raw.execute("UPDATE kit_schema SET version = 99")
    before = (tmp_path / "results.sqlite").read_bytes()
    with pytest.raises(StoreError, match=f"schema 99 .* up to {SCHEMA_VERSION}.*Upgrade"):
        ResultStore(store.place)
    assert (tmp_path / "results.sqlite").read_bytes() == before


def test_a_crash_while_the_tables_are_made_leaves_none(tmp_path, monkeypatch):
    def crash(connection):
        MIGRATIONS[0](connection)
        raise KeyboardInterrupt

    monkeypatch.setattr("targets.migrations.MIGRATIONS", (crash,))
    with pytest.raises(KeyboardInterrupt):
        ResultStore(tmp_path / "results.sqlite")
    monkeypatch.undo()
    with ResultStore(tmp_path / "results.sqlite") as store:
        assert store.runs() == []


def test_many_processes_may_open_a_new_store_at_once(tmp_path):
    code = "import sys; from targets.store import ResultStore; ResultStore(sys.argv[1])"
    place = str(tmp_path / "results.sqlite")
    openers = [subprocess.Popen([sys.executable, "-c", code, place], cwd=ROOT) for _ in range(6)]
    assert [opener.wait(60) for opener in openers] == [0] * 6


def test_other_files_are_refused_in_one_line(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("not a database at all, but long enough to be looked at\n" * 50)
    with pytest.raises(StoreError, match="not a database") as error:
        ResultStore(text)
    assert "\n" not in str(error.value)
    foreign = tmp_path / "foreign.sqlite"
    with sqlite3.connect(foreign) as raw:
        raw.execute("CREATE TABLE birds (name TEXT)")
    with pytest.raises(StoreError, match="something else"):
        ResultStore(foreign)
    with pytest.raises(StoreError, match="folder does not exist"):
        ResultStore(tmp_path / "no" / "store.sqlite")
    with pytest.raises(StoreError, match="is a folder"):
        ResultStore(tmp_path)
    with pytest.raises(StoreError, match="URL"):
        ResultStore("://")


def test_a_changed_record_is_refused(store):
    run = store.begin(PLAN, capture_environment())
    store.save_session(run.run_id, "k", session(0))
    with sqlite3.connect(store.place) as raw:
        raw.execute("UPDATE sessions SET record = replace(record, 'load_ms', 'load_s')")
    with pytest.raises(StoreError, match="SessionRecord cannot be read"):
        store.sessions(run.run_id, "k")


def test_ambiguous_and_unknown_runs(store):
    with pytest.raises(StoreError, match="no run at all"):
        store.find(None)
    store.begin(PLAN, capture_environment())
    with pytest.raises(StoreError, match="no run zzz"):
        store.find("zzz")
