"""The listening socket: opening it, and closing it without resetting clients."""

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


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; raises SettingsError if the address is unavailable."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        # Python appends the address, which is in the sentence already.
        reason = (error.strerror or str(error)).split(" (")[0].lower()
        raise SettingsError(f"Cannot listen on {host}:{port}: {reason}.") from error


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
