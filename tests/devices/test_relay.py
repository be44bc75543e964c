"""The relay passes bytes on unchanged, and does exactly the harm that it is asked for."""

import socket
import threading

import pytest

from targets.virtual.relay import Fault, Relay


@pytest.fixture
def echo():
    """A server that sends back what it gets."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve(end):
        while data := end.recv(65536):
            end.sendall(data)
        end.close()

    def accept():
        while True:
            try:
                end, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(end,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield server.getsockname()
    server.shutdown(socket.SHUT_RDWR)
    server.close()


def through(relay, data, wanted):
    with socket.create_connection(("127.0.0.1", relay.port), timeout=20) as end:
        end.sendall(data)
        got = b""
        try:
            while len(got) < wanted and (chunk := end.recv(65536)):
                got += chunk
        except ConnectionError:
            pass
        return got


def test_bytes_pass_unchanged(echo):
    data = bytes(range(256)) * 40
    with Relay(("127.0.0.1", 0), echo) as relay:
        assert through(relay, data, len(data)) == data
        assert relay.accepted == 1


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("after", [0, 1, 999])
def test_a_cut_comes_after_just_so_many_bytes(echo, direction, after):
    with Relay(("127.0.0.1", 0), echo, Fault("cut", after_bytes=after, direction=direction)) as relay:
        assert len(through(relay, bytes(1000), 1000)) <= after
        relay.fault = None
        assert len(through(relay, bytes(1000), 1000)) == 1000


@pytest.mark.parametrize("place", [0, 500, 999])
def test_one_byte_is_changed(echo, place):
    with Relay(("127.0.0.1", 0), echo, Fault("corrupt", after_bytes=place)) as relay:
        got = through(relay, bytes(1000), 1000)
    assert [index for index, byte in enumerate(got) if byte] == [place]


@pytest.mark.parametrize("fault", [Fault("stall", 10, seconds=0.2), Fault("throttle", 10, bytes_per_s=20_000)])
def test_slow_bytes_are_the_same_bytes(echo, fault):
    data = bytes(range(250)) * 8
    with Relay(("127.0.0.1", 0), echo, fault) as relay:
        assert through(relay, data, len(data)) == data


def test_live_connections_can_be_dropped(echo):
    with Relay(("127.0.0.1", 0), echo) as relay, socket.create_connection(("127.0.0.1", relay.port)) as end:
        end.sendall(b"x")
        assert end.recv(1) == b"x"
        assert relay.cut() == 1
        end.settimeout(20)
        assert end.recv(1) == b""
        assert through(relay, b"y", 1) == b"y"


def test_a_server_that_is_away_drops_the_client_and_a_closed_relay_refuses():
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = gone.getsockname()
    with Relay(("127.0.0.1", 0), address) as relay:
        assert through(relay, b"", 1) == b""
    with pytest.raises(ConnectionError):
        through(relay, b"", 1)
