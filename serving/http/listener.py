"""The listening socket: binding it, listening, and closing it without resetting clients."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import sys

from serving.errors import SettingsError

BACKLOG = 2048
# Linux: a socket filter in the classic Berkeley form (code, jump if true, jump if false, operand).
SO_ATTACH_FILTER = 26
TCP_FLAGS, SYN = 13, 0x02
DROP_SYN = (
    (0x30, 0, 0, TCP_FLAGS),  # load a byte of the TCP header
    (0x45, 0, 1, SYN),  # is it the first packet of a connection?
    (0x06, 0, 0, 0),  # drop it
    (0x06, 0, 0, 0xFFFFFFFF),  # accept it
)


def bind(host: str, port: int) -> socket.socket:
    """A socket with this address, which does not listen yet: clients are refused, and need not wait.

    Raises SettingsError if the address is unavailable.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    # As in socket.create_server, which listens at once.
    if sys.platform != "win32":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if listener.family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise _unavailable(host, port, error) from error
    return listener


def listen(listener: socket.socket) -> None:
    """Listen on a socket of `bind`; raises SettingsError if another one of its address listens by now."""
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        host, port = listener.getsockname()[:2]
        raise _unavailable(host, port, error) from error


def _unavailable(host: str, port: int, error: OSError) -> SettingsError:
    return SettingsError(
        f"Cannot listen on {host}:{port}: {(error.strerror or str(error)).lower()}."
    )


def stop_accepting(listener: socket.socket) -> None:
    """Let no new connection begin on `listener`; those that have begun can still be accepted.

    The kernel resets connections that wait to be accepted when their socket is closed. So SYN packets are
    dropped first; their clients try again a second later and are refused. Except on Linux this does nothing,
    and a connection that begins at the last moment may be reset.
    """
    if sys.platform != "linux":
        return
    program = b"".join(struct.pack("HBBI", *line) for line in DROP_SYN)
    buffer = ctypes.create_string_buffer(program)
    pointer = struct.pack("HL", len(DROP_SYN), ctypes.addressof(buffer))
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, pointer)
