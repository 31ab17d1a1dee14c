"""The listening socket: opening it, and closing it so that no client is cut off."""

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
    (0x45, 0, 1, SYN),  # a new connection's first packet?
    (0x06, 0, 0, 0),  # drop it
    (0x06, 0, 0, 0xFFFFFFFF),  # let it through
)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; raises SettingsError, in a sentence, if the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        # Python appends the address, which the sentence has already.
        reason = (error.strerror or str(error)).split(" (")[0].lower()
        raise SettingsError(f"Cannot listen on {host}:{port}: {reason}.") from error


def stop_accepting(listener: socket.socket) -> None:
    """Let no further connection begin on `listener`, while those that have can still be accepted.

    The kernel resets connections that wait to be accepted when their socket is closed. Clients whose
    first packet is dropped try again a second later, and are refused then. Where the system has no such
    filter, nothing happens, and a connection of the last moment may be reset.
    """
    if sys.platform != "linux":
        return
    program = b"".join(struct.pack("HBBI", *line) for line in DROP_SYN)
    kept = ctypes.create_string_buffer(program)
    pointer = struct.pack("HL", len(DROP_SYN), ctypes.addressof(kept))
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, pointer)
