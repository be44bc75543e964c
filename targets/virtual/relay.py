"""A relay between a client and a virtual device's server, and the place where the wire is made to fail."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

Direction = Literal["up", "down"]
"""``up`` is from the client to the device."""

_CHUNK = 2**16


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong on a connection.

    Attributes:
        kind: ``cut`` drops the connection, ``stall`` goes silent for ``seconds``, ``throttle`` slows every byte from
            there on to ``bytes_per_s``, ``corrupt`` flips all bits of one byte.
        after_bytes: Bytes of that direction that pass unharmed first.
        direction: Which way it happens.
        seconds: Length of a stall.
        bytes_per_s: Speed of a throttled connection.
        once: Only on the next connection, and on none after it.
    """

    kind: Literal["cut", "stall", "throttle", "corrupt"]
    after_bytes: int = 0
    direction: Direction = "down"
    seconds: float = 0.0
    bytes_per_s: float = 65_536.0
    once: bool = False


class Relay:
    """Accepts connections and passes their bytes on; a context manager that closes itself.

    Args:
        listen: Host and port to listen on (port 0 picks a free one), or a socket that listens already.
        connect: Host and port of the server, or a function that makes the connection.
        fault: What goes wrong on every connection from now on; :attr:`fault` may be changed at any time and holds for
            connections made afterwards.

    Attributes:
        port: Port it listens on.
        fault: See above.
        accepted: Connections accepted so far.
        passed: Bytes passed on so far, by direction.
        harmed: Times that a fault came to pass.
    """

    def __init__(
        self,
        listen: tuple[str, int] | socket.socket,
        connect: tuple[str, int] | Callable[[], socket.socket],
        fault: Fault | None = None,
    ) -> None:
        self.fault = fault
        self.accepted = 0
        self.passed: dict[Direction, int] = {"up": 0, "down": 0}
        self.harmed = 0
        self._connect = connect
        self._listener = listen if isinstance(listen, socket.socket) else socket.create_server(listen)
        self.port: int = self._listener.getsockname()[1]
        self._live: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._open = True
        self._acceptor = threading.Thread(target=self._accept, name="relay", daemon=True)
        self._acceptor.start()

    def cut(self) -> int:
        """Drop all live connections; returns how many there were."""
        with self._lock:
            live = list(self._live)
        for end in live:
            with contextlib.suppress(OSError):  # the other thread may have closed it already
                end.shutdown(socket.SHUT_RDWR)
        return len(live) // 2

    def close(self) -> None:
        """Stop listening and drop what is live; closing twice is harmless."""
        self._open = False
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._acceptor.join()
        self._listener.close()
        self.cut()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while self._open:
            try:
                client, _ = self._listener.accept()
            except OSError:  # the client was gone before we looked, or we close
                continue
            self.accepted += 1
            fault = self.fault
            if fault is not None and fault.once:
                self.fault = None
            threading.Thread(target=self._serve, args=(client, fault), daemon=True).start()

    def _serve(self, client: socket.socket, fault: Fault | None) -> None:
        client.setblocking(True)
        try:
            to = self._connect
            server = to() if callable(to) else socket.create_connection(to, timeout=5)
        except OSError:  # nobody serves now: the client learns that by being dropped
            client.close()
            return
        server.settimeout(None)
        for end in (client, server):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._live |= {client, server}
        up = threading.Thread(target=self._pump, args=(client, server, "up", fault), daemon=True)
        up.start()
        self._pump(server, client, "down", fault)
        up.join()
        with self._lock:
            self._live -= {client, server}
        client.close()
        server.close()

    def _pump(self, source: socket.socket, sink: socket.socket, direction: Direction, fault: Fault | None) -> None:
        """Pass bytes on until one end closes; then both are shut, for neither protocol uses half-open connections."""
        mine = fault if fault is not None and fault.direction == direction else None
        passed = 0
        with contextlib.suppress(OSError):  # a reset is an end like any other
            while data := source.recv(_CHUNK):
                if mine is not None and passed + len(data) > mine.after_bytes:
                    self.harmed += passed <= mine.after_bytes
                    _pass_faulty(sink, data, mine, passed)
                else:
                    sink.sendall(data)
                passed += len(data)
                self.passed[direction] += len(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def _pass_faulty(sink: socket.socket, data: bytes, fault: Fault, passed: int) -> None:
    place = fault.after_bytes - passed  # negative once the fault's place is behind us
    if fault.kind == "cut":
        sink.sendall(data[:place])
        raise ConnectionAbortedError("cut on purpose")
    if fault.kind == "corrupt" and place >= 0:
        data = data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]
    elif fault.kind == "stall" and place >= 0:
        sink.sendall(data[:place])
        data = data[place:]
        time.sleep(fault.seconds)
    elif fault.kind == "throttle":
        time.sleep(len(data) / fault.bytes_per_s)
    sink.sendall(data)
