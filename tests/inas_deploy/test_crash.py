"""A bench that is killed or interrupted loses no finished session, repeats none and invents none."""

import itertools
import json
import random
import re
import signal
import sqlite3
import subprocess
import time
from datetime import datetime

import pytest

from benchmarks.chain import write_chain
from tests.inas_deploy.running import command, environment, start, workers

KILLS = 20
SESSIONS = 14
SAVED = re.compile(r"\] session .* id ([0-9a-f]{32})")


@pytest.fixture
def folder(tmp_path):
    for name, blocks in (("one", 2), ("two", 3)):
        write_chain(tmp_path / f"{name}.onnx", blocks)
    return tmp_path


def bench_words(*more):
    models = ("--model", "one.onnx", "--model", "two.onnx")
    return ("bench", *models, "--sessions", SESSIONS, "--seconds", 0.05, "--no-per-op", "--store", "s.sqlite", *more)


def stored(folder):
    if not (folder / "s.sqlite").exists():
        return []
    with sqlite3.connect(folder / "s.sqlite") as store:
        tables = {name for (name,) in store.execute("SELECT name FROM sqlite_master")}
        if "sessions" not in tables:
            return []
        return store.execute("SELECT session_id, run_id, variant_key, position, record FROM sessions").fetchall()


def test_kill_at_random_moments(folder):
    draw = random.Random(7)
    announced, windows = set(), []
    env = environment(TMPDIR=str(folder))
    for _ in range(KILLS):
        log = folder / "stderr.txt"
        with log.open("w") as stderr:
            begin = time.time()
            process = subprocess.Popen(
                command(*bench_words("--resume")), cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=stderr
            )
            time.sleep(draw.uniform(0.1, 3.0))
            process.kill()
            process.wait()
            windows.append((begin, time.time()))
        announced |= set(SAVED.findall(log.read_text()))
        time.sleep(0.2)
        assert not workers(folder), "a measuring process outlived its bench"
        assert announced <= {row[0] for row in stored(folder)}, "a session that was reported as saved is gone"
    begin = time.time()
    done = subprocess.run(
        command(*bench_words("--resume", "--json")), cwd=folder, env=env, capture_output=True, text=True, check=True
    )
    windows.append((begin, time.time()))
    rows = stored(folder)
    run = json.loads(done.stdout)
    assert len({row[1] for row in rows}) == 1, "a second run was begun"
    assert len(rows) == 2 * SESSIONS
    assert len({row[0] for row in rows}) == len(rows), "a session is there twice"
    assert sorted((row[2], row[3]) for row in rows) == sorted(
        (m["variant"]["key"], i) for m in run["measurements"] for i in range(SESSIONS)
    )
    assert announced <= {row[0] for row in rows}
    records = sorted((json.loads(row[4]) for row in rows), key=lambda r: r["started_at"])
    for record in records:  # none invented: each was measured while a bench ran, and none beside another
        started, finished = (_seconds(record[key]) for key in ("started_at", "finished_at"))
        assert any(low <= started <= finished <= high for low, high in windows)
        assert len(record["samples_ns"]) >= 10
        assert sum(record["samples_ns"]) / 1e9 <= finished - started
    for before, after in itertools.pairwise(records):
        assert before["finished_at"] <= after["started_at"]
    assert len({r["pid"] for r in records}) > KILLS / 2


def _seconds(text):
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruption_keeps_the_store_and_says_how_to_go_on(folder, number):
    process = start(*bench_words(), cwd=folder)
    for line in process.stderr:
        if SAVED.search(line):
            break
    process.send_signal(number)
    _, rest = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in rest
    assert re.search(
        r"stopped: \d+ of 28 steps are kept in s.sqlite; go on by repeating the command with --resume", rest
    )
    kept = {row[0] for row in stored(folder)}
    assert kept
    process = start(*bench_words("--resume"), cwd=folder)
    for line in process.stderr:
        if SAVED.search(line):
            break
    process.send_signal(number)
    process.communicate(timeout=30)
    assert kept < {row[0] for row in stored(folder)}
    assert len({row[1] for row in stored(folder)}) == 1
