"""The answer of the device-side script is read whole or not at all, whatever a command prints."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from targets.transports.adb_scripts import Answer, read_answer, run_script

TOKEN = "0123456789abcdef" * 2


def told(status, out, err):
    return f"{TOKEN} status {status}\n{TOKEN} end {len(out)} {len(err)}\n".encode() + out + err


tricky = st.lists(
    st.sampled_from([b"\n", b"\r\n", TOKEN.encode(), b" end 3 4", b" status 0", b"\0", b"\xff"]) | st.binary(max_size=9)
).map(b"".join)


@given(st.integers(0, 255), tricky, tricky)
def test_a_whole_answer_is_read_exactly(status, out, err):
    assert read_answer(TOKEN, told(status, out, err)) == Answer("", status, out, err)


@given(st.integers(0, 255), tricky, tricky, st.data())
def test_a_part_of_an_answer_is_never_taken_for_a_whole_one(status, out, err, data):
    whole = told(status, out, err)
    part = whole[: data.draw(st.integers(0, len(whole) - 1))]
    assert read_answer(TOKEN, part).problem == "cut"
    assert read_answer(TOKEN, whole + b"x").problem == "cut"


@given(st.binary(max_size=200))
def test_noise_is_never_an_answer(noise):
    assert read_answer(TOKEN, noise).problem == "cut"
    assert read_answer(TOKEN, noise + b"\n" + told(0, b"", b"")).problem == "cut"


@pytest.mark.parametrize("word", ["folder", "program", "full"])
def test_what_kept_a_command_from_running_is_told(word):
    assert read_answer(TOKEN, f"{TOKEN} {word}\n".encode()).problem == word
    assert read_answer(TOKEN, f"{TOKEN} status 0\n{TOKEN} {word}\n{TOKEN} end 0 0\n".encode()).problem == word


@pytest.mark.parametrize("line", ["end 0 0", "status x", "status 0 0", "end 1", "end -1 1", "other", ""])
def test_a_line_out_of_place_is_no_answer(line):
    assert read_answer(TOKEN, f"{TOKEN} {line}\n".encode()).problem == "cut"


def test_what_a_value_holds_is_not_filled_in_again():
    script = run_script(TOKEN, "/w", ["echo", "@GUARD@", "@NO_SUCH@"], {"A": "@LIMIT@"}, 10, 20)
    assert "exec $S echo @GUARD@ @NO_SUCH@ )" in script
    assert "export A=@LIMIT@;" in script
