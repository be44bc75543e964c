import itertools

import pytest

from targets.errors import DeviceUnavailable, FailureKind, StoreError
from targets.health import DatabaseHealth, FileHealth, open_health
from tests.targets.postgres import fresh_database

_number = itertools.count()


@pytest.fixture(params=["files", "postgresql", "sqlite"])
def book(request, tmp_path):
    if request.param == "files":
        return FileHealth(tmp_path / "health")
    if request.param == "sqlite":
        return DatabaseHealth(f"sqlite:///{tmp_path / 'store.sqlite'}")
    return DatabaseHealth(fresh_database(request.getfixturevalue("postgres"), f"health{next(_number)}"))


def test_three_failures_in_a_row_are_quarantine_until_released(book):
    for kind in (FailureKind.LOST_DEVICE, FailureKind.TIMEOUT):
        state = book.record_failure("adb:1", kind, "no answer")
        assert state.quarantined_at is None
        book.check("adb:1", "phone")
    state = book.record_failure("adb:1", FailureKind.TOOL_ERROR, "benchmark_model:\n\x1b[31msegfault")
    assert (state.failures, state.kind) == (3, FailureKind.TOOL_ERROR)
    with pytest.raises(DeviceUnavailable) as error:
        book.check("adb:1", "phone")
    text = str(error.value)
    assert text.startswith("phone has been in quarantine since ")
    assert "after 3 failures in a row, the last one: benchmark_model: \\x1b[31msegfault" in text
    assert text.endswith("inas-deploy devices check phone")
    book.record_success("adb:1")  # of a session that had begun before
    assert book.states() == [state]
    assert book.record_failure("adb:1", FailureKind.TIMEOUT, "late").quarantined_at == state.quarantined_at
    book.release("adb:1")
    book.check("adb:1", "phone")
    assert book.states() == []


def test_a_success_ends_the_row_and_devices_are_apart(book):
    for _ in range(2):
        book.record_failure("adb:1", FailureKind.TIMEOUT, "slow")
    book.record_failure("adb:2", FailureKind.TIMEOUT, "slow")
    book.record_success("adb:1")
    book.record_success("never seen")
    assert book.record_failure("adb:1", FailureKind.TIMEOUT, "slow").failures == 1
    assert [(s.key, s.failures) for s in book.states()] == [("adb:1", 1), ("adb:2", 1)]


def test_what_the_device_is_not_to_blame_for_is_not_counted(book):
    for kind in (FailureKind.BAD_ARTIFACT, FailureKind.OUT_OF_MEMORY):
        for _ in range(4):
            assert book.record_failure("adb:1", kind, "too large") is None
    assert book.states() == []


def test_a_damaged_file_is_one_line(tmp_path):
    book = FileHealth(tmp_path / "health")
    book.record_failure("adb:1", FailureKind.TIMEOUT, "slow")
    [file] = (tmp_path / "health").glob("*.json")
    file.write_text('{"health": {"failures": "many"}}')
    with pytest.raises(StoreError, match="damaged"):
        book.check("adb:1", "phone")


def test_a_file_store_keeps_health_with_the_host(tmp_path):
    assert isinstance(open_health(tmp_path / "results.sqlite"), FileHealth)
