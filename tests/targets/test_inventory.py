"""The inventory: what it accepts, and that every mistake names file, line and key in one line."""

import pytest

from targets.errors import UsageError
from targets.inventory import MAX_FILE_BYTES, Device, load_inventory
from targets.toml_lines import line_of

GOOD = """\
[devices.nova6]
transport = "adb"
serial = "ABCD1234"
runtime = "tflite"
tags = ["android", "huawei"]
accelerator = "gpu"
threads = 4

[devices.nano]
transport = "ssh"
host = "10.0.0.2"
port = 2222
tags = ["jetson"]

[devices.s21]
transport = "adb"
host = "192.168.1.7:5555"
tags = ["android"]
stand_in = "virtual"
pinned_cores = [4, 5]
"""


def _refused(tmp_path, text):
    path = tmp_path / "devices.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError) as caught:
        load_inventory(path)
    line = str(caught.value)
    assert "\n" not in line
    assert caught.value.exit_code == 2
    return line.removeprefix(f"{tmp_path}/")


def test_a_good_file_gives_its_devices_after_local(tmp_path):
    (tmp_path / "devices.toml").write_text(GOOD)
    inventory = load_inventory(tmp_path / "devices.toml")
    assert [d.name for d in inventory.devices] == ["local", "nova6", "nano", "s21"]
    assert inventory.select("nova6")[0].threads == 4
    assert [d.name for d in inventory.select("android")] == ["nova6", "s21"]
    assert inventory.select("s21")[0].pinned_cores == (4, 5)
    assert inventory.select("s21")[0].stand_in == "virtual"


def test_without_a_file_there_is_local(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inventory = load_inventory()
    assert inventory.devices == (Device(name="local"),)
    assert inventory.path is None
    with pytest.raises(UsageError, match=r"'phone'.*Devices: local\. No inventory was read; describe devices in"):
        inventory.select("phone")


def test_the_working_folders_file_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "devices.toml").write_text("[devices.local]\nthreads = 2\n")
    assert [(d.name, d.threads) for d in load_inventory().devices] == [("local", 2)]


def test_an_unknown_name_lists_close_matches_and_all_there_is(tmp_path):
    (tmp_path / "devices.toml").write_text(GOOD)
    with pytest.raises(UsageError) as caught:
        load_inventory(tmp_path / "devices.toml").select("androit")
    text = "no device or tag is called 'androit'. Did you mean 'android'? Devices: local, nova6, nano, s21. "
    assert str(caught.value) == text + "Tags: android, huawei, jetson."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '# phones\n\n[devices.nova6]\ntransport = "adb"\nserial = "A"\n\nthreds = 4\n',
            "devices.toml:7: devices.nova6.threds: unknown key. Did you mean 'threads'?",
        ),
        ("[devices.a]\nthreads = 1\n[device.b]\n", "devices.toml:3: device: unknown key. Did you mean 'devices'?"),
        ("[devices]\na = {threads=1, colour=2}\n", "devices.toml:2: devices.a.colour: unknown key. Known keys: tags,"),
        ('[devices.a]\ntags = [\n  "x",\n]\n# n\nthreads = "4"\n', "devices.toml:6: devices.a.threads: '4' is refused"),
        ("[devices.a]\nthreads = true\n", "devices.toml:2: devices.a.threads: 'True' is refused"),
        ("[devices.a]\nthreads = 0\n", "greater than or equal to 1"),
        (
            "[devices.a]\nname = 'b'\n",
            "devices.toml:2: devices.a.name: unknown key. The name stands in",
        ),
        ('[devices.a]\ntags = [\n "x",\n "y z"]\n', "devices.toml:2: devices.a.tags: 'y z' is refused"),
        (
            '[devices.a]\nprecision = "int3"\n',
            "devices.toml:2: devices.a.precision: 'int3' is refused: Input",
        ),
        ('[devices.a]\nruntime = "onnx"\n', "devices.toml:2: devices.a.runtime: 'onnx' is refused: Input should be"),
        ("[devices.a]\npinned_cores = []\n", "devices.toml:2: devices.a.pinned_cores: '[]' is refused"),
        ("[devices.a]\nconnect_timeout_s = nan\n", "devices.toml:2: devices.a.connect_timeout_s: 'nan' is refused"),
        ('[devices.b]\n[devices.a]\ntransport = "ssh"\n', "devices.toml:2: devices.a: transport 'ssh' needs 'host'"),
        ('[devices.a]\ntransport = "adb"\n', "devices.toml:1: devices.a: transport 'adb' needs either 'serial'"),
        ('[devices.a]\n\nhost = "x"\n', "devices.toml:3: devices.a.host: 'host' means nothing with transport 'local'"),
        (
            '[devices.a]\ntransport = "ssh"\nhost = "-oProxyCommand=x"\n',
            "devices.toml:3: devices.a.host: '-oProxy",
        ),
        (
            '[devices.local]\ntransport = "ssh"\nhost = "x"\n',
            "devices.toml:1: devices.local: the device named",
        ),
        ('[devices."a b"]\n', "devices.toml:1: devices.a b: is not a device name. Use up to 64"),
        ('[devices.b]\n[devices.a]\ntags = ["b"]\n', "devices.toml:3: devices.a.tags: tag 'b' is also a device's name"),
        ("devices = 3\n", "devices.toml:1: devices: must be a table. Write [devices.NAME]."),
        ("[devices]\na = 3\n", "devices.toml:2: devices.a: must be a table. Write [devices.a]."),
        ("[devices.a]\nthreads = = 4\n", "devices.toml:2: is not valid TOML: Invalid value"),
        ("[devices.a]\n[devices.a]\n", "devices.toml:2: is not valid TOML: Cannot declare"),
        ("[devices.a]\nthreads = [1,\n\n", "devices.toml:2: is not valid TOML"),
        ("a = " + "[" * 5000, "devices.toml is nested too deeply"),
        ("a = " + "9" * 5000, "devices.toml: is not valid TOML: Exceeds the limit"),
        (b"[devices.a]\n\xff\n", "devices.toml:2: is not UTF-8 text"),
        (b"# " + b"x" * MAX_FILE_BYTES, f"devices.toml is larger than {MAX_FILE_BYTES} bytes"),
        ('[devices.a]\nthreads = "4"\ncolour = 1\n', "(and 1 more)"),
    ],
)
def test_a_mistake_is_named_with_file_line_and_key(tmp_path, text, expected):
    assert expected in _refused(tmp_path, text)


def test_a_file_that_is_not_there_or_no_file(tmp_path):
    with pytest.raises(UsageError, match=r"inventory .*no\.toml does not exist"):
        load_inventory(tmp_path / "no.toml")
    with pytest.raises(UsageError, match="is not a file"):
        load_inventory(tmp_path)


def test_one_phone_may_be_two_devices(tmp_path):
    text = '[devices.cpu]\ntransport="adb"\nserial="A"\n[devices.gpu]\ntransport="adb"\nserial="A"\naccelerator="gpu"\n'
    (tmp_path / "d.toml").write_text(text)
    assert len(load_inventory(tmp_path / "d.toml").devices) == 3


@pytest.mark.parametrize(
    ("text", "keys", "line"),
    [
        ("a = 1\nb = 2\n", ("b",), 2),
        ("[x]\n[x.y]\nz = 1\n", ("x", "y", "z"), 3),
        ("[x]\ny.z = 1\n", ("x", "y", "z"), 2),
        ('s = """\n[x]\ny = 1\n"""\n[x]\ny = 1\n', ("x", "y"), 6),
        ("[x]\n# c\n\ny = [\n1,\n2]\n", ("x", "y"), 4),
        ("a = 1\r\nb = 2\r\n", ("b",), 2),
        ("a = 1\n", ("b",), None),
    ],
)
def test_the_line_of_a_key(text, keys, line):
    assert line_of(text, keys) == line
