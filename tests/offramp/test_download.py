"""Downloads are streamed, bounded, restricted to the allowed schemes, and fail in one sentence."""

from __future__ import annotations

import io
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trustme

from offramp import download as module
from offramp.download import HTTPS_ONLY, DownloadError, download, hide_query
from tests.file_server import FileServer, file_server, trust

HTTP_TOO = frozenset({"http", "https"})
BODY = bytes(range(256)) * 5000


def fetch(
    url: str,
    *,
    max_bytes: int = len(BODY),
    max_s: float = 60.0,
    schemes: frozenset[str] = HTTPS_ONLY,
    label: str | None = None,
) -> bytes:
    return b"".join(download(url, max_bytes=max_bytes, max_s=max_s, schemes=schemes, label=label))


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FileServer]:
    """A trusted server over TLS with the file /file."""
    trust(authority, tmp_path, monkeypatch)
    with file_server(authority) as server:
        server.bodies["/file"] = BODY
        yield server


def test_a_file_comes_in_chunks_with_its_query_sent(server: FileServer) -> None:
    assert fetch(f"{server.url}/file?token=secret#part") == BODY
    assert server.requests == ["/file?token=secret"]


def test_a_file_of_unknown_length_is_downloaded(server: FileServer) -> None:
    server.lengths["/file"] = None
    assert fetch(f"{server.url}/file") == BODY


def test_http_is_used_where_it_is_allowed() -> None:
    with file_server() as server:
        server.bodies["/file"] = BODY
        assert fetch(f"{server.url}/file", schemes=HTTP_TOO) == BODY
        with pytest.raises(DownloadError, match="is not an https address"):
            fetch(f"{server.url}/file")
        assert server.requests == ["/file"]


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/file", "data:,text", ""])
def test_other_schemes_are_refused(url: str) -> None:
    with pytest.raises(DownloadError, match="is not an http or https address"):
        fetch(url, schemes=HTTP_TOO)


def test_a_redirect_to_an_allowed_scheme_is_followed(server: FileServer) -> None:
    server.redirects["/moved"] = "/file"
    assert fetch(f"{server.url}/moved") == BODY
    assert server.requests == ["/moved", "/file"]


@pytest.mark.parametrize("target", ["http://127.0.0.1:1/file", "ftp://127.0.0.1/file"])
def test_a_redirect_to_another_scheme_is_refused(server: FileServer, target: str) -> None:
    server.redirects["/moved"] = target
    with pytest.raises(DownloadError, match="/moved redirects to an address that is not https"):
        fetch(f"{server.url}/moved?token=secret")


def test_a_redirect_to_a_local_file_is_refused(server: FileServer) -> None:
    server.redirects["/moved"] = "file:///etc/passwd"
    with pytest.raises(DownloadError, match="was answered with status 302"):
        fetch(f"{server.url}/moved", schemes=HTTP_TOO)


def test_a_circle_of_redirects_ends(server: FileServer) -> None:
    server.redirects["/moved"] = "/moved"
    with pytest.raises(DownloadError, match="status 302"):
        fetch(f"{server.url}/moved")
    assert len(server.requests) < 20


def test_a_missing_file_is_reported_with_its_status(server: FileServer) -> None:
    with pytest.raises(DownloadError, match="/other was answered with status 404"):
        fetch(f"{server.url}/other")


@pytest.mark.parametrize(
    ("length", "message"),
    [(len(BODY), "has 1280000 bytes; at most 1000 are"), (None, "has more than the allowed 1000")],
)
def test_a_file_that_is_too_large_is_refused(
    server: FileServer, length: int | None, message: str
) -> None:
    server.lengths["/file"] = length
    with pytest.raises(DownloadError, match=message):
        fetch(f"{server.url}/file", max_bytes=1000)


def test_an_incomplete_transfer_is_reported(server: FileServer) -> None:
    server.lengths["/file"] = len(BODY) + 10
    with pytest.raises(DownloadError, match="ended after 1280000 of 1280010 bytes"):
        fetch(f"{server.url}/file", max_bytes=len(BODY) + 10)


def test_a_transfer_longer_than_the_time_limit_is_ended(server: FileServer) -> None:
    with pytest.raises(DownloadError, match="took more than"):
        fetch(f"{server.url}/file", max_s=-1.0)


def send_once(listener: socket.socket, answer: bytes) -> None:
    """Answer the first request with `answer`, then close."""
    connection, _ = listener.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(answer)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "no data for 0 s"),
        (b"\x1b[31mnot http\r\n\r\n", "the response is not valid HTTP"),
        (b"", "the server closed the connection"),
    ],
)
def test_a_server_that_does_not_answer_in_http_is_reported(
    monkeypatch: pytest.MonkeyPatch, answer: bytes | None, message: str
) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/file?token=secret"
        chunks = download(url, max_bytes=1, max_s=60, schemes=HTTP_TOO)
        with ThreadPoolExecutor() as pool:
            if answer is not None:
                pool.submit(send_once, listener, answer)
            with pytest.raises(DownloadError, match=message) as caught:
                next(chunks)
    assert str(caught.value).isprintable()
    assert "secret" not in str(caught.value)


def test_an_untrusted_certificate_is_refused(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust(authority, tmp_path, monkeypatch)
    for issuer, identity in ((authority, "example.org"), (trustme.CA(), "127.0.0.1")):
        with file_server(issuer, identity) as server:
            with pytest.raises(DownloadError, match="its certificate is not trusted"):
                fetch(f"{server.url}/file")
            assert server.requests == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://127.0.0.1:99999/f?key=secret", "is unavailable"),
        ("https://127.0.0.1:port/f?key=secret", "the address is not valid"),
        ("https://127.0.0.1:1/f g?key=secret", "the address is not valid"),
        ("https://[::1/f?key=secret", "the address is not valid"),
        ("https:///f?key=secret", "no host given"),
        ("https://127.0.0.1:1/f?key=secret", "onnection refused"),
    ],
)
def test_an_unusable_address_is_reported_without_its_query(url: str, message: str) -> None:
    with pytest.raises(DownloadError, match=message) as caught:
        fetch(url)
    assert str(caught.value).isprintable()
    assert "secret" not in str(caught.value)


def test_messages_show_a_printable_address() -> None:
    assert hide_query("https://host/a\x1bb/ü?q#f") == "https://host/a%1Bb/%C3%BC"
    assert hide_query("https://[::1]:8/50%25") == "https://[::1]:8/50%25"


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("known", [True, False])
def test_a_terminal_sees_progress(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    if not known:
        server.lengths["/file"] = None
    for stream, sees in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        assert fetch(f"{server.url}/file", label="fetching [file]") == BODY
        assert ("fetching [file]" in stream.getvalue()) == sees
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    assert fetch(f"{server.url}/file") == BODY
    assert terminal.getvalue() == ""
