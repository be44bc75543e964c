"""Entries are added and removed, and nothing else in the file changes."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from targets.device_profiles import PROFILES, recognised
from targets.errors import UsageError
from targets.inventory import Device, Inventory, load_inventory
from targets.inventory_file import add_entry, entry_of, remove_entry

HAND_WRITTEN = """\
# our lab
[devices.nova6]   # on the shelf
transport = "adb"
serial = 'ABCD1234'
tags = [
  "android",  # all phones
]

[devices."s.21"]
transport = "adb"
host = "192.168.1.7:5555"
# the end, without a newline"""
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True).filter(lambda name: name != "local")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


@pytest.fixture
def inventory(tmp_path):
    path = tmp_path / "devices.toml"
    path.write_text(HAND_WRITTEN)
    return path


def test_an_entry_is_added_below_what_is_there(inventory):
    device = add_entry(inventory, "nano", {"transport": "ssh", "host": "10.0.0.2", "profile": "jetson-nano", "port": 7})
    assert device.runtime_version == "8.2"
    assert inventory.read_text() == (
        f'{HAND_WRITTEN}\n\n[devices.nano]\ntransport = "ssh"\nhost = "10.0.0.2"\nprofile = "jetson-nano"\nport = 7\n'
    )
    remove_entry(inventory, "nano")
    assert inventory.read_text() == f"{HAND_WRITTEN}\n"
    assert [d.name for d in load_inventory(inventory).devices] == ["local", "nova6", "s.21"]


def test_an_entry_is_removed_from_the_middle_with_its_own_lines_only(inventory):
    add_entry(inventory, "a", {"threads": 1})
    with inventory.open("a") as file:
        file.write("# about the next one\n")
    add_entry(inventory, "b", {"threads": 2})
    remove_entry(inventory, "a")
    assert inventory.read_text() == f"{HAND_WRITTEN}\n# about the next one\n\n[devices.b]\nthreads = 2\n"
    remove_entry(inventory, "a")


def test_a_file_is_made_and_a_taken_name_refused(tmp_path):
    path = tmp_path / "new.toml"
    add_entry(path, "box", {"threads": 2})
    assert path.read_text() == "[devices.box]\nthreads = 2\n"
    with pytest.raises(UsageError, match="has a device 'box' already"):
        add_entry(path, "box", {"threads": 3})


def test_what_the_inventory_refuses_is_not_written(inventory):
    with pytest.raises(UsageError, match=r"threds.*unknown key"):
        add_entry(inventory, "x", {"threds": 2})
    with pytest.raises(UsageError, match="is also a device's name"):
        add_entry(inventory, "x", {"tags": ["nova6"]})
    assert inventory.read_text() == HAND_WRITTEN
    fresh = inventory.with_name("fresh.toml")
    with pytest.raises(UsageError, match="threds"):
        add_entry(fresh, "x", {"threds": 2})
    assert not fresh.exists()


@pytest.mark.parametrize(
    "text", ["devices = { a = { threads = 1 } }\n", "[devices]\na.threads = 1\n[devices.b]\nx = '"]
)
def test_a_file_written_another_way_is_left_alone(tmp_path, text):
    path = tmp_path / "devices.toml"
    path.write_text(text)
    with pytest.raises(UsageError):
        add_entry(path, "new", {"threads": 1})
    assert path.read_text() == text
    path.write_text("[devices]\na.threads = 1\n")
    with pytest.raises(UsageError, match="by hand"):
        remove_entry(path, "a")


@given(name=NAMES, host=TEXTS, tags=st.lists(NAMES, max_size=3), threads=st.integers(1, 1024), begin=st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_entry_reads_back_as_it_was(tmp_path, name, host, tags, threads, begin):
    path = tmp_path / "devices.toml"
    path.write_text(HAND_WRITTEN if begin else "")
    entry = {"transport": "ssh", "host": host, "tags": tags, "threads": threads}
    taken = {"nova6", "s.21"} if begin else set()
    try:
        device = add_entry(path, name, entry)
    except UsageError:
        assert path.read_text() == (HAND_WRITTEN if begin else "")
        assert (
            name in taken
            or {name, "local", *taken} & set(tags)
            or any(c < " " for c in host)
            or host[0] in " -"
            or (host[0].isspace())
        )
        return
    assert (device.name, device.host, device.tags, device.threads) == (name, host, tuple(tags), threads)
    assert entry_of(device) == {key: value for key, value in entry.items() if value != []}
    assert path.read_text().startswith(HAND_WRITTEN if begin else "[")


def test_profiles_fill_in_and_what_is_said_goes_before(tmp_path):
    path = tmp_path / "devices.toml"
    path.write_text(
        '[devices.jetson]\ntransport = "ssh"\nhost = "a"\nprofile = "jetson-nano"\nprecision = "fp32"\n'
        '[devices.sim]\ntransport = "simulated"\nmodel = "nova6-se"\ntags = ["mine"]\n'
    )
    jetson, sim = load_inventory(path).devices[1:]
    assert (jetson.runtime, jetson.runtime_version, jetson.opset, jetson.accelerator) == ("tensorrt", "8.2", 13, "gpu")
    assert jetson.precision == "fp32"
    assert jetson.tags == ("nvidia",)  # the profile's tag 'jetson' is the device's own name here
    assert (sim.runtime, sim.tags, sim.label) == ("tflite", ("mine",), "simulated")
    path.write_text('[devices.a]\nprofile = "jetson-nanoo"\n')
    with pytest.raises(UsageError, match=r"devices\.toml:2: .*no built-in profile; there are: titan-xp, jetson-nano"):
        load_inventory(path)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=str)
def test_a_profile_is_a_device_that_the_inventory_takes(profile):
    address = {"ssh": {"host": "a"}, "adb": {"serial": "a"}}[profile.transport]
    device = Device.model_validate({"name": "x", "transport": profile.transport, **address, **profile.defaults()})
    assert device.precision in profile.precisions
    assert profile.unit(None) is not None
    assert recognised(f"some {profile.marks[0]} thing") is profile
    assert profile.sources


def test_a_kind_of_device_that_is_missing_is_told_how_to_add(tmp_path):
    with pytest.raises(UsageError) as caught:
        Inventory().select("android")
    assert "plug one in and run 'inas-deploy devices add'" in str(caught.value)
    assert "'inas-deploy devices add --virtual phone'" in str(caught.value)
    with pytest.raises(UsageError, match=r"devices add USER@HOST --profile jetson-nano.*--virtual board"):
        Inventory().select("jetson")
    assert recognised("a toaster") is None
