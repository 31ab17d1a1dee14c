"""Bundles at an https address, over real TLS on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from exports.bundle import resolve
from exports.bundle.errors import BundleError
from exports.bundle.reader import load_bundle
from exports.bundle.resolve import resolve_bundle
from tests.exports.bundle.packed import Packed, cache_entries
from tests.file_server import FileServer, file_server, trust

pytestmark = pytest.mark.usefixtures("private_cache")


@pytest.fixture
def server(packed: Packed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A trusted server over TLS with the packed bundle /tiny.zip."""
    authority = trustme.CA()
    trust(authority, tmp_path, monkeypatch)
    with file_server(authority) as server:
        server.bodies["/tiny.zip"] = packed.content
        yield server


def test_an_address_is_downloaded_once(
    server: FileServer, packed: Packed, private_cache: Path
) -> None:
    source = f"{server.url}/tiny.zip?token=secret#sha256={packed.digest.upper()}"
    path = resolve_bundle(source)
    assert load_bundle(path).manifest.name == "tiny"
    assert resolve_bundle(source) == path
    assert server.requests == ["/tiny.zip?token=secret"]
    assert cache_entries(private_cache) == [packed.digest]


def test_a_redirect_within_https_is_followed(server: FileServer, packed: Packed) -> None:
    server.redirects["/moved"] = "/tiny.zip"
    load_bundle(resolve_bundle(f"{server.url}/moved#sha256={packed.digest}"))
    assert server.requests == ["/moved", "/tiny.zip"]


def test_a_redirect_out_of_https_is_refused(
    server: FileServer, packed: Packed, private_cache: Path
) -> None:
    server.redirects["/moved"] = "http://127.0.0.1:1/tiny.zip"
    with pytest.raises(BundleError, match="redirects to an address that is not https"):
        resolve_bundle(f"{server.url}/moved#sha256={packed.digest}")
    assert cache_entries(private_cache) == []


DIGEST = "0" * 64


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (f"http://127.0.0.1/tiny.zip#sha256={DIGEST}", "over https only"),
        (f"ftp://127.0.0.1/tiny.zip#sha256={DIGEST}", "over https only"),
        (f"file:///etc/passwd#sha256={DIGEST}", "over https only"),
        ("https://127.0.0.1/tiny.zip", "needs #sha256= and 64 hex digits"),
        ("https://127.0.0.1/tiny.zip#sha256=abc", "needs #sha256= and 64 hex digits"),
        (f"https://127.0.0.1/tiny.zip#md5={DIGEST}", "needs #sha256= and 64 hex digits"),
        (f"https://127.0.0.1/tiny.zip#sha256={DIGEST}0", "needs #sha256= and 64 hex digits"),
        (f"https://user:hunter2@127.0.0.1/t.zip#sha256={DIGEST}", "cannot hold a user's name"),
        (f"https://[::1/t.zip?key=hunter2#sha256={DIGEST}", "is not an address"),
        (f"https://127.0.0.1:99999/t.zip#sha256={DIGEST}", "is unavailable"),
        (f"https:///t.zip#sha256={DIGEST}", "is unavailable"),
        (f"https://127.0.0.1:1/t.zip?key=hunter2#sha256={DIGEST}", "onnection refused"),
    ],
)
def test_an_unusable_address_is_refused_in_one_sentence(source: str, message: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        resolve_bundle(source)
    assert str(caught.value).isprintable()
    assert "hunter2" not in str(caught.value)


def test_a_file_with_another_hash_is_refused(server: FileServer, private_cache: Path) -> None:
    with pytest.raises(BundleError, match="is not the expected file: its sha256 is"):
        resolve_bundle(f"{server.url}/tiny.zip#sha256={DIGEST}")
    assert cache_entries(private_cache) == []


def test_a_missing_file_is_reported(server: FileServer) -> None:
    with pytest.raises(BundleError, match="status 404"):
        resolve_bundle(f"{server.url}/other.zip#sha256={DIGEST}")


def test_an_incomplete_transfer_is_reported_and_not_cached(
    server: FileServer, packed: Packed, private_cache: Path
) -> None:
    size = len(packed.content)
    server.lengths["/tiny.zip"] = size + 10
    with pytest.raises(BundleError, match=f"ended after {size} of {size + 10} bytes"):
        resolve_bundle(f"{server.url}/tiny.zip#sha256={packed.digest}")
    assert cache_entries(private_cache) == []


def test_a_file_that_is_too_large_is_refused(
    server: FileServer, packed: Packed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve, "MAX_PACKED_BYTES", 1000)
    with pytest.raises(BundleError, match="at most 1000 are allowed"):
        resolve_bundle(f"{server.url}/tiny.zip#sha256={packed.digest}")
    with pytest.raises(BundleError, match="larger than a packed bundle may be"):
        resolve_bundle(packed.path)


def test_a_download_is_limited_in_time(
    server: FileServer, packed: Packed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve, "MAX_DOWNLOAD_S", -1.0)
    with pytest.raises(BundleError, match="took more than"):
        resolve_bundle(f"{server.url}/tiny.zip#sha256={packed.digest}")
