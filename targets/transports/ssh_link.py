"""One ``ssh`` connection: reached in time, proven to be who it should be, logged in to with a key, kept alive."""

from __future__ import annotations

import contextlib
import functools
import getpass
import logging
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from targets.errors import DeviceUnavailable, FailureKind, SessionFailed, printable
from targets.extras import require
from targets.inventory import Device, split_address
from targets.stand_ins import how_to_reach
from targets.transports.ssh_auth import Identities
from targets.transports.ssh_guard import Guard
from targets.transports.ssh_keys import DEFAULT_PORT, HostKey, check_key, judge_key, known_keys

_KEEPALIVE_S = 10
_SILENCE_MS = 30_000  # unacknowledged for longer, a connection is given up
_LEAVE_S = 5.0
_LOG = "targets.transports.ssh.wire"
_CHANNEL_REQUEST = 98  # RFC 4254, section 9


class Unreachable(DeviceUnavailable):
    """The network does not lead to the device at the moment; later it may."""


@dataclass(frozen=True)
class Hop:
    """One host on the way to a device, the device itself last."""

    user: str
    host: str
    port: int


def hops(device: Device) -> list[Hop]:
    """The hosts to log in to, in order.

    Raises:
        DeviceUnavailable: If the jump host's address cannot be read.
    """
    user = device.user or getpass.getuser()
    way = []
    if device.jump is not None:
        jump_user, _, address = device.jump.rpartition("@")
        host, port = split_address(address)
        if not host:
            raise DeviceUnavailable(f"device {device.name!r}: jump names no host", "Write jump = 'USER@HOST:PORT'.")
        way.append(Hop(jump_user or user, host, port or DEFAULT_PORT))
    return [*way, Hop(user, *device.address)]


@functools.cache
def wire_errors() -> tuple[type[Exception], ...]:
    """What paramiko raises where a connection breaks, or the other side says what no server should."""
    paramiko = require("paramiko", "ssh")
    said_wrongly = (paramiko.SSHException, paramiko.SFTPError, ValueError, LookupError, TypeError, struct.error)
    return (OSError, EOFError, *said_wrongly)


class Watchdog:
    """Closes a connection at a deadline: several of paramiko's own waits have none, or follow the wall clock.

    Args:
        seconds: The deadline.
        link: What is closed then.

    Attributes:
        expired: Whether it came to that.
    """

    def __init__(self, seconds: float, link: Link) -> None:
        self.expired = False
        self._link = link
        self._timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), self._bite)
        self._timer.daemon = True

    def _bite(self) -> None:
        self.expired = True
        self._link.cut()

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()


class Link:
    """A connection to a device, through its jump host if it has one.

    Args:
        device: Reached by ``ssh``.

    Raises:
        Unreachable: If the network does not lead there, or nobody answers in time.
        DeviceUnavailable: If a host is not who it should be, or refuses the login.
        MissingExtra: If paramiko is not installed.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._transports: list[Any] = []
        self._sockets: list[Any] = []
        self._sftp: Any = None
        self.lock = threading.RLock()  # one talk with the sftp server at a time
        self.guard_lock = threading.Lock()  # and one with the guard, which must not wait for a long copy
        self.guard: Guard | None = None

    def open(self) -> Self:
        """Connect, log in and start the guard."""
        with self._opening():
            for hop in hops(self._device):
                transport = self._meet(hop)
                shown = _shown(transport, hop)
                check_key(self._device, shown, known_keys(self._device, shown.name))
                _log_in(transport, hop, self._device)
            folder = self._device.work_folder
            self.guard = Guard(self.session(), folder and folder.rstrip("/"), self._device.connect_timeout_s)
        return self

    def first_unknown_key(self) -> HostKey:
        """The key of the first host on the way that is not known yet, else the device's own."""
        with self._opening():
            for hop in (way := hops(self._device)):
                transport = self._meet(hop)
                shown = _shown(transport, hop)
                known = known_keys(self._device, shown.name)
                if hop is way[-1] or judge_key(shown, known) == "unknown":
                    break
                check_key(self._device, shown, known)
                _log_in(transport, hop, self._device)
        self.cut()
        return shown

    @contextlib.contextmanager
    def _opening(self) -> Iterator[None]:
        seconds = self._device.connect_timeout_s
        host, port = self._device.address
        where = f"device {self._device.name!r} ({printable(host)}:{port})"
        watchdog, opened = Watchdog(seconds, self), False
        refusals: tuple[type[Exception], ...] = (DeviceUnavailable, *wire_errors())
        try:
            with watchdog:
                yield
            opened = True
        except refusals as error:
            if watchdog.expired:
                raise Unreachable(
                    f"{where} did not answer within {seconds:g} s", "Is it on? If it is slow, raise connect_timeout_s."
                ) from error
            if isinstance(error, DeviceUnavailable):
                raise
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            fix = how_to_reach(self._device, "Check host and port, and that its ssh server runs.")
            raise Unreachable(f"{where} cannot be reached: {printable(why or 'no answer')}", fix) from error
        finally:  # an interrupt, too, leaves no thread and no connection behind
            if not opened:
                self.cut()

    def _meet(self, hop: Hop) -> Any:
        """Connect to a host and exchange keys; who it is has not been looked at then."""
        if self._transports:
            peer = self._transports[-1].open_channel("direct-tcpip", (hop.host, hop.port), ("127.0.0.1", 0))
        else:
            peer = _dial(hop, self._device.connect_timeout_s)
        self._sockets.append(peer)
        transport = _transport_class()(peer)
        self._transports.append(transport)
        _prefer_known(transport, self._device, HostKey(hop.host, hop.port, "", b"").name)
        _silence(transport)
        error = _wait(transport, lambda event: transport.start_client(event=event))
        if not transport.is_active() or not transport.initial_kex_done:
            raise _as_wire_error(error)
        transport.set_keepalive(_KEEPALIVE_S)
        return transport

    @property
    def alive(self) -> bool:
        """Whether the connection stands, as far as is known here."""
        return bool(self._transports) and all(transport.is_active() for transport in self._transports)

    def session(self) -> Any:
        """A new channel for one command."""
        return self._transports[-1].open_session()

    def sftp(self) -> Any:
        """The channel for files, opened when first asked for."""
        with self.lock:
            if self._sftp is None:
                self._sftp = require("paramiko", "ssh").SFTPClient.from_transport(self._transports[-1])
            return self._sftp

    @contextlib.contextmanager
    def talking(self, what: str, seconds: float) -> Iterator[None]:
        """Turn what breaks, or takes too long, into a failure of its kind; the connection is closed then.

        Args:
            what: What is being done, for the message.
            seconds: Deadline.

        Raises:
            SessionFailed: ``LOST_DEVICE`` where the connection broke, ``TIMEOUT`` at the deadline.
        """
        name = self._device.name
        watchdog = Watchdog(seconds, self)
        try:
            with watchdog:
                yield
        except wire_errors() as error:
            self.cut()
            if watchdog.expired:
                raise SessionFailed(
                    f"{what}: device {name!r} did not answer within {seconds:g} s",
                    FailureKind.TIMEOUT,
                    "Check the device and the network.",
                ) from error
            why = f" ({printable(str(error))})" if str(error) else ""
            raise SessionFailed(
                f"{what}: the connection to device {name!r} was lost{why}", FailureKind.LOST_DEVICE, "Check the device."
            ) from error

    def close(self) -> None:
        """Let the guard clear up, then close; a connection that is broken already is no failure here."""
        if self.alive and self.guard is not None:
            with contextlib.suppress(*wire_errors()), Watchdog(_LEAVE_S, self), self.guard_lock:
                self.guard.leave()
        self.cut()

    def cut(self) -> None:
        """Close at once; what still waits for an answer is woken with an error."""
        for transport in reversed(self._transports):
            transport.close()
        for peer in reversed(self._sockets):
            with contextlib.suppress(*wire_errors()):
                peer.close()


def first_unknown_key(device: Device) -> HostKey:
    """See :func:`targets.transports.ssh_keys.scan_host_key`."""
    return Link(device).first_unknown_key()


def _dial(hop: Hop, timeout_s: float) -> socket.socket:
    peer = socket.create_connection((hop.host, hop.port), timeout=timeout_s)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENCE_MS)
    return peer


def _shown(transport: Any, hop: Hop) -> HostKey:
    key = transport.get_remote_server_key()
    return HostKey(hop.host, hop.port, key.get_name(), key.asbytes())


def _prefer_known(transport: Any, device: Device, name: str) -> None:
    """Ask for the kinds of key by which the host is known: a host with several would else show another one."""
    kinds = {key.kind for key in known_keys(device, name) if not key.revoked}
    kinds |= {"rsa-sha2-512", "rsa-sha2-256"} if "ssh-rsa" in kinds else set()
    options = transport.get_security_options()
    options.key_types = sorted(options.key_types, key=lambda kind: kind not in kinds)


def _log_in(transport: Any, hop: Hop, device: Device) -> None:
    identities, rejected = Identities(device), 0
    try:
        for key in identities.candidates():
            error = _wait(transport, lambda event, key=key: transport.auth_publickey(hop.user, key, event))
            if transport.is_authenticated():
                return
            if not transport.is_active():
                if not rejected:
                    raise _as_wire_error(error)
                break  # a server may hang up after so many keys
            rejected += 1
            if error is not None and getattr(error, "allowed_types", None) and "publickey" not in error.allowed_types:
                break
    finally:
        identities.close()
    where = f"{printable(hop.user)}@{printable(hop.host)}:{hop.port}"
    if not identities.tried:
        raise DeviceUnavailable(
            f"device {device.name!r}: there is no key to log in to {where} with",
            "Name one as key_file, or load one with ssh-add.",
        )
    raise DeviceUnavailable(
        f"device {device.name!r}: {where} refuses the login (tried {', '.join(identities.tried)})",
        f"Put the public key there (ssh-copy-id -p {hop.port} {printable(hop.user)}@{printable(hop.host)}), "
        "or name another user or key_file.",
    )


def _wait(transport: Any, begin: Any) -> Any:
    """Begin something that ends with an event, wait for it, and hand back the error it left, if any."""
    event = threading.Event()
    begin(event)
    while not event.wait(0.1) and transport.is_active():
        pass
    return transport.get_exception()


def _as_wire_error(error: Any) -> Exception:
    return error if isinstance(error, wire_errors()) else EOFError("it does not answer as an ssh server does")


def _silence(transport: Any) -> None:
    """Keep paramiko's log, tracebacks included, off the terminal."""
    logger = logging.getLogger(_LOG)
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
    transport.set_log_channel(_LOG)


@functools.cache
def _transport_class() -> Any:
    """Paramiko's transport, which also hears by which signal a command ended (RFC 4254, section 6.10)."""
    paramiko = require("paramiko", "ssh")
    plain = paramiko.Transport._channel_handler_table[_CHANNEL_REQUEST]

    def hear(channel: Any, message: Any) -> None:
        start = message.packet.tell()
        if message.get_text() == "exit-signal":
            message.get_boolean()
            channel.exit_signal = message.get_text()
        message.packet.seek(start)
        plain(channel, message)

    table = {**paramiko.Transport._channel_handler_table, _CHANNEL_REQUEST: hear}
    return type("SignalTransport", (paramiko.Transport,), {"_channel_handler_table": table})


def signal_of(channel: Any) -> int | None:
    """Number of the signal that ended a channel's command; 0 for one without a portable name, ``None`` for none."""
    name = getattr(channel, "exit_signal", None)
    if name is None:
        return None
    number = getattr(signal, f"SIG{name}", 0)
    return int(number) if isinstance(number, signal.Signals) else 0


def has_passed(deadline: float) -> bool:
    """Whether a moment of :func:`time.monotonic` lies behind us."""
    return time.monotonic() >= deadline
