from __future__ import annotations

import socket

import pytest

from serving.errors import SettingsError
from serving.http.listener import bind, listen


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_clients_are_refused_until_it_listens(host: str) -> None:
    with bind(host, 0) as listener:
        address = listener.getsockname()[:2]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, timeout=5)
        listen(listener)
        socket.create_connection(address, timeout=5).close()


def test_an_address_in_use_is_named_when_binding() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            SettingsError,
            match=rf"^Cannot listen on 127\.0\.0\.1:{port}: address already in use\.$",
        ):
            bind("127.0.0.1", port)


def test_of_two_that_are_bound_the_later_one_to_listen_is_refused() -> None:
    with bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with bind("127.0.0.1", port) as second:
            listen(first)
            with pytest.raises(
                SettingsError,
                match=rf"^Cannot listen on 127\.0\.0\.1:{port}: address already in use\.$",
            ):
                listen(second)
