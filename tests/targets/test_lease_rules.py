"""The rules of leasing on a made-up clock, and who counts as gone."""

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from targets.leases.holders import boot_id, is_gone, process_identity
from targets.leases.ledger import Claim, Ledger, Moment

LEASE_S, TICKET_S = 30.0, 10.0
NAMES = "abcde"
actions = st.lists(
    st.tuples(st.sampled_from(["ask", "renew", "drop"]), st.sampled_from(NAMES), st.floats(0, 12)), max_size=60
)


def claim(name, process=""):
    return Claim(name, name, process)


@given(actions)
def test_tokens_grow_and_a_live_holder_is_never_passed_over(steps):
    ledger, now, holder, until, tokens = Ledger(), 0.0, None, 0.0, []
    for action, name, pause_s in steps:
        now += pause_s
        moment = Moment(now, now)
        if action == "ask":
            token = ledger.ask(claim(name), moment, LEASE_S)
            if token is None:
                assert holder != name or now >= until
            elif holder == name and tokens and token == tokens[-1]:
                pass  # asked again: the same lease
            else:
                assert holder is None or now >= until
                tokens.append(token)
                holder, until = name, now + LEASE_S
        elif action == "renew":
            kept = ledger.renew(name, moment, LEASE_S)
            assert not kept or holder == name
            assert kept or holder != name
            if kept:
                until = now + LEASE_S
        else:
            ledger.drop(name)
            holder = None if holder == name else holder
        if ledger.held is None:
            holder = None
    assert tokens == sorted(set(tokens))


@given(st.permutations(NAMES), st.sets(st.sampled_from(NAMES)))
def test_order_of_asking_is_order_of_having_and_the_dead_are_skipped(order, dead):
    ledger, start = Ledger(), Moment(0, 0)
    ledger.ask(claim("holder"), start, LEASE_S)
    for name in order:
        assert ledger.ask(claim(name), start, LEASE_S) is None
    now = Moment(TICKET_S / 2 + 1, 0)
    living = [name for name in order if name not in dead]
    for name in reversed(living):
        assert ledger.ask(claim(name), now, LEASE_S) is None  # a sign of life; it changes no place
    ledger.drop("holder")
    now = Moment(TICKET_S + 1, 0)
    had = []
    while len(had) < len(living):
        name = next(n for n in reversed(living) if n not in had and ledger.ask(claim(n), now, LEASE_S))
        had.append(name)
        ledger.drop(name)
    assert had == living


def test_a_free_device_is_not_taken_past_the_line():
    ledger, now = Ledger(), Moment(0, 0)
    ledger.ask(claim("a"), now, LEASE_S)
    ledger.ask(claim("b"), now, LEASE_S)
    ledger.drop("a")
    assert ledger.ask(claim("c"), now, LEASE_S) is None
    assert ledger.ask(claim("b"), now, LEASE_S) == 2


def test_this_process_is_here_and_an_ended_one_is_gone():
    program = "from targets.leases.holders import process_identity; print(process_identity())"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    mine = process_identity()
    if not mine:
        pytest.skip("this system tells no process's start")
    assert not is_gone(mine)
    assert is_gone(ended)
    assert is_gone(mine + "1")  # the number is another process's by now
    assert not is_gone(mine.replace(boot_id(), "another-host"))
    zombie = subprocess.Popen([sys.executable, "-c", f"{program}; input()"], stdin=-1, stdout=-1, text=True)
    identity = zombie.stdout.readline().strip()
    assert not is_gone(identity)
    zombie.stdin.close()
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    assert is_gone(identity)
    zombie.stdout.close()
    zombie.wait()


@given(st.text())
def test_nothing_follows_from_an_identity_that_cannot_be_read(text):
    assert not is_gone(text)
