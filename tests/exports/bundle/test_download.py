"""Bundles from https addresses, over real TLS."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from exports.bundle import download, resolve
from exports.bundle.errors import BundleError
from exports.bundle.reader import load_bundle
from exports.bundle.resolve import resolve_bundle
from tests.exports.bundle.https_site import Site, serving
from tests.exports.bundle.packed import Packed, cache_entries

DIGEST = "0" * 64

pytestmark = pytest.mark.usefixtures("private_cache")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def site(
    authority: trustme.CA, packed: Packed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    """A site with the packed bundle at /tiny.zip, whose authority is trusted."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with serving(authority, "127.0.0.1") as site:
        site.bodies["/tiny.zip"] = packed.content
        yield site


def test_an_address_is_fetched_once(site: Site, packed: Packed, private_cache: Path) -> None:
    source = f"{site.url}/tiny.zip?token=secret#sha256={packed.digest.upper()}"
    path = resolve_bundle(source)
    assert load_bundle(path).manifest.name == "tiny"
    assert resolve_bundle(source) == path
    assert site.requested == ["/tiny.zip?token=secret"]
    assert cache_entries(private_cache) == [packed.digest]


def test_a_redirect_within_https_is_followed(site: Site, packed: Packed) -> None:
    site.redirects["/moved"] = "/tiny.zip"
    load_bundle(resolve_bundle(f"{site.url}/moved#sha256={packed.digest}"))
    assert site.requested == ["/moved", "/tiny.zip"]


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1:1/tiny.zip", "file:///etc/passwd", "ftp://127.0.0.1/tiny.zip"]
)
def test_a_redirect_out_of_https_is_refused(
    site: Site, packed: Packed, private_cache: Path, target: str
) -> None:
    site.redirects["/moved"] = target
    with pytest.raises(BundleError, match=r"redirects to an address that is not https|status 302"):
        resolve_bundle(f"{site.url}/moved#sha256={packed.digest}")
    assert cache_entries(private_cache) == []


def test_a_circle_of_redirects_is_refused(site: Site, packed: Packed) -> None:
    site.redirects["/moved"] = "/moved"
    with pytest.raises(BundleError, match="status 302"):
        resolve_bundle(f"{site.url}/moved#sha256={packed.digest}")
    assert len(site.requested) < 20


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (f"http://127.0.0.1/tiny.zip#sha256={DIGEST}", "over https only"),
        (f"ftp://127.0.0.1/tiny.zip#sha256={DIGEST}", "over https only"),
        (f"file:///etc/passwd#sha256={DIGEST}", "over https only"),
        ("https://127.0.0.1/tiny.zip", "needs #sha256= and 64 hex digits"),
        ("https://127.0.0.1/tiny.zip#sha256=abc", "needs #sha256= and 64 hex digits"),
        (f"https://127.0.0.1/tiny.zip#md5={DIGEST}", "needs #sha256= and 64 hex digits"),
        (f"https://127.0.0.1/tiny.zip#sha256={DIGEST}0", "needs #sha256= and 64 hex digits"),
        (f"https://user:hunter2@127.0.0.1/t.zip#sha256={DIGEST}", "cannot hold a user's name"),
        (f"https://[::1/t.zip#sha256={DIGEST}", "is not an address"),
        (f"https://127.0.0.1:99999/t.zip#sha256={DIGEST}", "is unavailable"),
        (f"https:///t.zip#sha256={DIGEST}", "is unavailable"),
        (f"https://127.0.0.1:1/t.zip?key=hunter2#sha256={DIGEST}", "onnection refused"),
    ],
)
def test_an_unusable_address_is_refused_in_one_sentence(source: str, says: str) -> None:
    with pytest.raises(BundleError, match=says) as caught:
        resolve_bundle(source)
    assert str(caught.value).isprintable()
    assert "hunter2" not in str(caught.value)


def test_a_file_with_another_hash_is_refused(site: Site, private_cache: Path) -> None:
    with pytest.raises(BundleError, match="is not the expected file: its sha256 is"):
        resolve_bundle(f"{site.url}/tiny.zip#sha256={DIGEST}")
    assert cache_entries(private_cache) == []


def test_a_missing_file_is_reported(site: Site) -> None:
    with pytest.raises(BundleError, match="status 404"):
        resolve_bundle(f"{site.url}/other.zip#sha256={DIGEST}")


def test_an_incomplete_transfer_is_reported(
    site: Site, packed: Packed, private_cache: Path
) -> None:
    size = len(packed.content)
    site.declared["/tiny.zip"] = size + 10
    with pytest.raises(BundleError, match=f"ended after {size} of {size + 10} bytes"):
        resolve_bundle(f"{site.url}/tiny.zip#sha256={packed.digest}")
    assert cache_entries(private_cache) == []


def test_a_file_that_is_too_large_is_refused(
    site: Site, packed: Packed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve, "MAX_PACKED_BYTES", 1000)
    with pytest.raises(BundleError, match="at most 1000 are allowed"):
        resolve_bundle(f"{site.url}/tiny.zip#sha256={packed.digest}")
    with pytest.raises(BundleError, match="larger than a packed bundle may be"):
        resolve_bundle(packed.path)


def test_a_slow_transfer_is_ended(
    site: Site, packed: Packed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TOTAL_S", -1.0)
    with pytest.raises(BundleError, match="took more than"):
        resolve_bundle(f"{site.url}/tiny.zip#sha256={packed.digest}")


def test_a_silent_server_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(BundleError, match="no data arrived for"):
            resolve_bundle(f"https://127.0.0.1:{port}/t.zip#sha256={DIGEST}")


def test_a_certificate_of_another_name_or_authority_is_refused(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    for issuer, identity in ((authority, "example.org"), (trustme.CA(), "127.0.0.1")):
        with serving(issuer, identity) as site:
            with pytest.raises(BundleError, match="its certificate is not trusted"):
                resolve_bundle(f"{site.url}/tiny.zip#sha256={DIGEST}")
            assert site.requested == []
