"""What is taken out of a recording: each kind of secret, for good, in time that grows with the text only."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from targets.inventory import Device
from targets.transports.secrets import Scrubber

KEYS = ("-----BEGIN PRIVATE KEY-----\n", "-----END PRIVATE KEY-----")
NANO = Device(name="n", transport="ssh", host="lab-7.example.net", user="alice", key_file="~/.ssh/id_lab")
BODY = "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("from 2001:db8:85a3::8a2e:370:7334 port 22", "2001:db8:85a3::8a2e:370:7334"),
        ("tcp 2001:db8::5:22, listening", "db8"),
        ("[2001:db8::5]:22", "2001:db8::5"),
        ("addr fe80::aabb:ccff:fedd:eeff%eth0", "aabb"),
        ("mapped ::ffff:10.1.2.3: refused", "10.1.2.3"),
        (f"-----BEGIN OPENSSH PRIVATE KEY-----\n{BODY}\n", BODY),
        (f"-----BEGIN PRIVATE KEY-----\n{BODY}\n[9 bytes left out]\n{BODY[:20]}\n-----END PRIVATE KEY-----", BODY[:20]),
        ("/data/alice_models and alice2", "alice"),
        ("ALICE@LAB-7.EXAMPLE.NET", "LAB-7"),
        ("alice@lab-7:~$", "lab-7"),
        ("ro.serialno=R58M12345", "R58M"),
        ("    Serial Number                         : 0421318065", "0421318065"),
        ("IMEI: 356938035643809", "3569"),
        (r"{\"serial\": \"R58M12345\"}", "R58M"),
        ("aa-bb-cc-dd-ee-ff", "bb-cc"),
        ("--token=abcdefghij", "abcdefghij"),
        ("password=hunter2", "hunter2"),
        ('{"password": "correct horse"}', "horse"),
        ("Authorization: Bearer abc.def", "abc.def"),
        ("got ghp_0123456789abcdef", "0123456789abcdef"),
        ("postgresql://u:p@ss@h/db", "ss@"),
    ],
)
def test_each_kind_of_secret_is_taken_out_and_stays_out(text, secret):
    scrub = Scrubber(NANO)
    once = scrub.text(text)
    assert secret not in once
    assert scrub.text(once) == once


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "MY_KEY", "GITHUB_PAT", "AUTH", "PGPASSWORD"])
def test_a_variable_that_is_named_a_secret_loses_its_value(name):
    assert Scrubber(NANO).env({name: "abc123", "PATH": "/bin", "PWD": "/"}) == {
        name: "<secret-1>",
        "PATH": "/bin",
        "PWD": "/",
    }


@pytest.mark.parametrize(
    "text",
    [
        *("TensorRT 10.3.0.26", "at 12:34:56.789", "std::abs a::b x[::2]", "::1", "2026-11-21-17-11-07"),
        *("unexpected token: x", "NVIDIA Jetson Nano", "jetson-nano", '{"serial": null}', "conv2d_1x1:0", "0" * 64),
    ],
)
def test_what_only_looks_like_a_secret_stays(text):
    device = Device(name="n", transport="ssh", host="nano.lab.example", user="pi")
    assert Scrubber(device).text(text) == text


@given(
    parts=st.lists(
        st.sampled_from(
            [
                *(
                    "alice",
                    "lab-7",
                    "password=",
                    "://",
                    "u:p@",
                    "@",
                    "/home/",
                    "2001:db8::5",
                    ":",
                    " ",
                    '"',
                ),
                *("serial: ", "abcd", "<user-1>", *KEYS, "\n", "inet ", "10.1.2.3", "Bearer "),
            ]
        ),
        max_size=12,
    )
)
def test_placeholders_never_touch(parts):
    assert "><" not in Scrubber(NANO).text("".join(parts))


def test_what_a_device_prints_cannot_hold_up_the_search():
    scrub = Scrubber(NANO)
    for text in (*KEYS, "://a:", "serial ", "a:", "a-", "1.", "eJ", "token="):
        assert scrub.text(text * 40_000)  # takes hours where the time grows with the square
