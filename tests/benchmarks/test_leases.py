"""The fight for devices, small: its witness would see two at once, and its books are real."""

import pytest

from benchmarks import leases, leases_worker
from benchmarks.postgres import find_binaries


@pytest.mark.parametrize("book", ["files", "postgresql"])
def test_the_claim_holds(book, capsys):
    if book == "postgresql" and find_binaries() is None:
        pytest.skip("no PostgreSQL server is installed: apt-get install postgresql")
    code = leases.main(["--books", book, "--processes", "5", "--seconds", "2"])
    out = capsys.readouterr().out
    assert code == 0, out
    assert out.splitlines()[-1].startswith("claim holds: one user a device")


def test_the_witness_sees_two_at_once(tmp_path):
    with leases_worker.witnessed(tmp_path / "device") as first:
        assert first
        with leases_worker.witnessed(tmp_path / "device") as second:
            assert not second
    with leases_worker.witnessed(tmp_path / "device") as third:
        assert third


def test_overlapping_turns_are_problems(tmp_path):
    arena = leases.Arena(tmp_path, str(tmp_path / "leases"), str(tmp_path / "store.sqlite"), 2)
    turn = {"device": "d", "asked": 0.0, "alone": True, "number": 0}
    turns = [
        {**turn, "start": 1.0, "end": 3.0, "token": 1, "session": "a"},
        {**turn, "start": 2.0, "end": 4.0, "token": 2, "session": "b", "alone": False},
    ]
    done = leases.Fight(turns={0: 1, 1: 0})
    leases.judge(done, turns, arena)
    assert done.problems == [
        "d was used by two at once",
        "turns 1 and 2 on d overlap",
        "turns are uneven: 0 to 1",
        "2 sessions are lost, 0 doubled, -2 unseen",
    ]
