"""Leases, the same tests over files and over a real PostgreSQL."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from targets.errors import DeviceUnavailable, KitError, StoreError, UsageError
from targets.leases import files as files_module
from targets.leases.database import DatabaseLeases
from targets.leases.files import FileLeases
from targets.leases.registry import open_leases
from tests.targets.postgres import fresh_database

ROOT = Path(__file__).resolve().parents[2]
LEASE_S = 3.0
_number = itertools.count()

CHILD = """
import sys, time
from pathlib import Path
from targets.leases.database import DatabaseLeases
from targets.leases.files import FileLeases
place, action, wait_s = sys.argv[1], sys.argv[2], float(sys.argv[3])
book = DatabaseLeases(place, lease_s=3.0) if "://" in place else FileLeases(Path(place), lease_s=3.0)
with book.acquire("phone", wait_s=wait_s) as lease:
    print("held", lease.token, flush=True)
    for line in sys.stdin:
        if line.strip() == "check":
            try:
                lease.check()
                print("ours", flush=True)
            except Exception as error:
                print(type(error).__name__, error, flush=True)
"""


@pytest.fixture(params=["files", "postgresql"])
def place(request, tmp_path):
    if request.param == "files":
        return str(tmp_path / "leases")
    return fresh_database(request.getfixturevalue("postgres"), f"leases{next(_number)}")


def open_book(place, lease_s=LEASE_S):
    if "://" in place:
        return DatabaseLeases(place, lease_s=lease_s, poll_s=0.1)
    return FileLeases(Path(place), lease_s=lease_s, poll_s=0.05)


@pytest.fixture
def book(place):
    return open_book(place)


@pytest.fixture
def child(place):
    running = []

    def start(wait_s=0.0):
        command = [sys.executable, "-c", CHILD, place, "hold", str(wait_s)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        running.append(subprocess.Popen(command, cwd=ROOT, **pipes))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.communicate()


def wait_until(true, deadline_s=30.0):
    end = time.monotonic() + deadline_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_one_holder_a_key_and_growing_tokens(book, place):
    other = open_book(place)
    with book.acquire("phone") as first, other.acquire("board") as aside:
        first.check()
        aside.check()
        with pytest.raises(DeviceUnavailable, match=rf"phone is in use by .* pid {os.getpid()} since .*--wait"):
            other.acquire("phone")
        with pytest.raises(DeviceUnavailable, match=r"after 0.2 s in line. Wait longer"):
            other.acquire("phone", wait_s=0.2)
        assert [(s.key, s.waiting) for s in other.states()] == [("board", 0), ("phone", 0)]
        assert 0 < (book.states()[0].expires_at - book.states()[0].since).total_seconds() <= LEASE_S * 2
    with other.acquire("phone") as second:
        assert second.token > first.token
        first.release()  # harmless
        second.check()
        with pytest.raises(DeviceUnavailable, match="given back"):
            first.check()
    assert book.states() == []


def test_a_lease_outlives_its_term_while_its_holder_lives(book, place):
    with book.acquire("phone") as lease:
        time.sleep(LEASE_S * 1.5)
        lease.check()
        with pytest.raises(DeviceUnavailable):
            open_book(place).acquire("phone")


def test_the_line_is_served_in_order_and_nobody_passes(book, place):
    order = []
    holder = book.acquire("phone")

    def wait_and_note(number):
        with open_book(place).acquire("phone", wait_s=60):
            order.append(number)

    threads = []
    for number in range(4):
        threads.append(threading.Thread(target=wait_and_note, args=(number,)))
        threads[-1].start()
        wait_until(lambda n=number: book.states()[0].waiting == n + 1)
    with pytest.raises(DeviceUnavailable, match="4 more in line"):
        book.acquire("phone")
    holder.release()
    for thread in threads:
        thread.join(60)
    assert order == [0, 1, 2, 3]


def test_of_many_who_ask_at_once_one_has_it(place):
    together = threading.Barrier(5)
    keys = [f"phone{n}" for n in range(12)]
    granted = []
    for key in keys[::2]:  # known to the book already
        open_book(place).acquire(key).release()

    def ask():
        book = open_book(place, lease_s=60)
        for key in keys:
            together.wait(60)
            try:
                granted.append((key, book.acquire(key)))
            except DeviceUnavailable:
                continue

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(key for key, _ in granted) == sorted(keys)
    for _, lease in granted:
        lease.check()
        lease.release()


def test_a_cancelled_wait_leaves_the_line(book, place):
    cancelled = threading.Event()
    refused = []

    def wait():
        try:
            open_book(place).acquire("phone", wait_s=600, cancelled=cancelled)
        except DeviceUnavailable as error:
            refused.append(error)

    with book.acquire("phone"):
        thread = threading.Thread(target=wait)
        thread.start()
        wait_until(lambda: book.states()[0].waiting == 1)
        cancelled.set()
        thread.join(30)
        assert refused
        assert book.states()[0].waiting == 0


def test_a_killed_holder_and_a_killed_waiter_make_room_at_once(book, child):
    holder = child()
    assert holder.stdout.readline().startswith("held")
    waiter = child(wait_s=600)
    wait_until(lambda: book.states()[0].waiting == 1)
    for process in (waiter, holder):
        process.kill()
        process.wait()
    book.acquire("phone").release()  # without waiting for any term


def test_a_killed_holder_of_another_host_makes_room_after_its_term(place, child, monkeypatch):
    holder = child()
    assert holder.stdout.readline().startswith("held")
    holder.kill()
    holder.wait()
    monkeypatch.setattr("targets.leases.holders.boot_id", lambda: "another host")
    monkeypatch.setattr("targets.leases.files.boot_id", lambda: files_boot_id)
    files_boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    book = open_book(place)
    with pytest.raises(DeviceUnavailable, match="in use"):
        book.acquire("phone")
    book.acquire("phone", wait_s=60).release()


def test_a_stopped_holder_loses_its_lease_and_notices(book, child):
    holder = child()
    held, token = holder.stdout.readline().split()
    holder.send_signal(signal.SIGSTOP)
    with book.acquire("phone", wait_s=60) as lease:
        assert (held, lease.token) == ("held", int(token) + 1)
        holder.send_signal(signal.SIGCONT)
        holder.stdin.write("check\n")
        holder.stdin.flush()
        answer = holder.stdout.readline()
        assert answer.startswith("DeviceUnavailable the lease on phone was lost")
        holder.communicate()  # it releases what it no longer has
        lease.check()


def test_a_stopped_holder_whom_nobody_replaced_goes_on(child):
    holder = child()
    holder.stdout.readline()
    holder.send_signal(signal.SIGSTOP)
    time.sleep(LEASE_S * 1.2)
    holder.send_signal(signal.SIGCONT)
    holder.stdin.write("check\n")
    holder.stdin.flush()
    assert holder.stdout.readline() == "ours\n"


def test_a_childs_copy_is_no_lease(book):
    with book.acquire("phone") as lease:
        pid = os.fork()
        if pid == 0:
            try:
                lease.check()
            except DeviceUnavailable:
                lease.release()
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        lease.check()


def test_clocks_of_files(tmp_path, monkeypatch):
    book = FileLeases(tmp_path / "leases", lease_s=1000)
    lease = book.acquire("phone")
    for jump_s in (10**7, -(10**7)):  # the date is set: nothing is freed, nothing frozen
        monkeypatch.setattr(files_module.time, "time", lambda jump_s=jump_s, real=time.time: real() + jump_s)
        with pytest.raises(DeviceUnavailable):
            book.acquire("phone")
        lease.check()
    monkeypatch.undo()
    monkeypatch.setattr(files_module, "boot_id", lambda: "after a restart of the host")
    with book.acquire("phone") as second:
        assert second.token == lease.token + 1
        with pytest.raises(DeviceUnavailable, match="lost"):
            lease.check()


def test_a_database_whose_clock_was_set_back_frees_after_a_term(postgres):
    url = fresh_database(postgres, "backwards")
    with DatabaseLeases(url, lease_s=1000).acquire("phone"):
        postgres_rows(url, "UPDATE leases SET expires_at = expires_at + 100000, process = 'elsewhere'")
        book = DatabaseLeases(url, lease_s=1000)
        with pytest.raises(DeviceUnavailable):
            book.acquire("phone")
        [(left,)] = postgres_rows(url, "SELECT expires_at - extract(epoch FROM now()) FROM leases")
        assert left <= 2000


def test_a_restart_of_the_database_keeps_leases_and_lines(postgres):
    url = fresh_database(postgres, "restart")
    book = DatabaseLeases(url, lease_s=60)
    got = []
    with book.acquire("phone") as lease:
        waiter = threading.Thread(
            target=lambda: got.append(DatabaseLeases(url, lease_s=60).acquire("phone", wait_s=60))
        )
        waiter.start()
        wait_until(lambda: book.states()[0].waiting == 1)
        postgres.stop()
        lease.check()  # the term that we know of is not over
        time.sleep(0.3)
        postgres.start()
        lease.check()
        assert not got
    waiter.join(60)
    assert got[0].token == lease.token + 1
    got[0].release()


def test_a_lease_counts_as_lost_once_its_term_ended_without_the_database(postgres):
    url = fresh_database(postgres, "away")
    with DatabaseLeases(url, lease_s=1.5).acquire("phone") as lease:
        postgres.stop()
        try:
            time.sleep(1.6)
            with pytest.raises(DeviceUnavailable, match="could not be renewed"):
                lease.check()
        finally:
            postgres.start()


def test_no_message_holds_the_password(postgres):
    wrong = postgres.url.replace(postgres.url.split(":")[2].split("@")[0], "hunter2-wrong")
    slips = [wrong, wrong.replace("://", "//"), wrong.replace("postgresql", "postgre sql"), wrong + "x"]
    slips += [wrong.replace("2-wrong", "2@wrong/secret"), "postgresql://lab@127.0.0.1:1/x?password=hunter2-wrong"]
    slips += [wrong.replace("://", ":/"), wrong.replace("://", ":"), wrong.replace("://", " ://"), wrong[13:]]
    slips += [wrong.replace("hunter2", "/hunter2"), wrong.replace("postgresql", "PostgreSQL")]
    for url in slips:
        with pytest.raises(KitError) as error:
            DatabaseLeases(url)
        if "postgre sql" not in url and not url.startswith(("postgresql//", "lab")):
            with pytest.raises(KitError):  # and not this host's own leases
                open_leases(url)
        text = f"{error.value!r} {error.value}"
        assert "hunter2" not in text
        assert "secret" not in text


@pytest.mark.parametrize(
    "change",
    ["taken_at = 'NaN'", "taken_at = 'Infinity'", "expires_at = 1e300", "holder = NULL", "taken_at = -1"],
)
def test_a_row_that_no_keeper_wrote_is_one_line(postgres, change):
    url = fresh_database(postgres, f"rows{next(_number)}")
    book = DatabaseLeases(url, lease_s=1000)
    with book.acquire("phone"):
        postgres_rows(url, f"UPDATE leases SET {change}, process = 'elsewhere'")
        for ask in (book.states, lambda: book.acquire("phone")):
            with pytest.raises(StoreError, match=r"the lease of phone cannot be read\. Delete its rows"):
                ask()


def test_other_databases_keep_no_leases(tmp_path):
    with pytest.raises(UsageError, match="PostgreSQL"):
        DatabaseLeases(f"sqlite:///{tmp_path / 'store.sqlite'}")
    assert isinstance(open_leases(tmp_path / "store.sqlite"), FileLeases)


def test_a_damaged_or_foreign_folder_is_refused_in_one_line(tmp_path):
    folder = tmp_path / "leases"
    book = FileLeases(folder)
    book.acquire("phone").release()
    assert folder.stat().st_mode & 0o777 == 0o700
    [file] = folder.glob("*.json")
    for text in ("{", "[]", json.dumps({"ledger": {"token": "x"}})):
        file.write_text(text)
        with pytest.raises(StoreError, match=r"damaged.*Remove it"):
            book.acquire("phone")
    folder.chmod(0o777)
    with pytest.raises(UsageError, match="not yours alone"):
        FileLeases(folder)


def postgres_rows(url, statement):
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []
