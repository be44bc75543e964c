"""Small things the tests over ssh share."""

import time
from pathlib import Path


def alive(pid):
    """Whether a process runs (one that ended and waits for its parent does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid, within_s=20.0):
    return comes(lambda: not alive(pid), within_s)


def comes(condition, within_s=20.0):
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def number_in(path):
    """The number a command wrote into a file, once it is there."""
    assert comes(lambda: path.exists() and path.read_text().strip()), f"{path} was never written"
    return int(path.read_text())


def known_as(device, folder, port, *, host="127.0.0.1"):
    """The same board, reached and known under another port."""
    key = Path(device.known_hosts).read_text().split(" ", 1)[1]
    file = folder / f"known_hosts-{port}"
    file.write_text(f"[{host}]:{port} {key}")
    return device.model_copy(update={"port": port, "known_hosts": str(file)})


def leftovers(folder):
    """What a closed connection should not have left in a work folder."""
    return [path for path in Path(folder).rglob("*") if path.name.startswith(".")]


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))
