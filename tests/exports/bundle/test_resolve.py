"""A bundle can be a directory, a packed file, or an https address; the last over real TLS."""

from __future__ import annotations

import contextlib
import http.server
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme

from exports.bundle import cache, download, resolve
from exports.bundle.archive import pack_bundle
from exports.bundle.cache import refuse_cached
from exports.bundle.errors import BundleError
from exports.bundle.reader import load_bundle
from exports.bundle.resolve import embedded, resolve_bundle

Handler = http.server.BaseHTTPRequestHandler


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "offramp" / "bundles"


@dataclass(frozen=True)
class Packed:
    path: Path
    content: bytes
    digest: str


@pytest.fixture(scope="session")
def packed(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Packed:
    target = tmp_path_factory.mktemp("packed") / "tiny.offramp.zip"
    digest = pack_bundle(bundle_path, target)
    return Packed(target, target.read_bytes(), digest)


@dataclass
class Site:
    """A TLS server on loopback: what it answers by path, and what it was asked for."""

    url: str
    bodies: dict[str, bytes]
    redirects: dict[str, str]
    declared: dict[str, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def site(
    authority: trustme.CA, packed: Packed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with serving(authority, "127.0.0.1") as site:
        site.bodies["/tiny.zip"] = packed.content
        yield site


@contextlib.contextmanager
def serving(authority: trustme.CA, identity: str) -> Iterator[Site]:
    class Answer(Handler):
        def do_GET(self) -> None:  # noqa: N802 - the name http.server calls
            found.asked.append(self.path)
            path = self.path.split("?")[0]
            if path in found.redirects:
                self.send_response(302)
                self.send_header("Location", found.redirects[path])
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = found.bodies.get(path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(found.declared.get(path, len(body or b""))))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(identity).configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    found = Site(f"https://127.0.0.1:{server.server_port}", {}, {})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def entries(root: Path) -> list[str]:
    """What the cache holds, but for its lock."""
    return sorted(f.name for f in root.iterdir() if f.name != ".lock") if root.exists() else []


def test_a_directory_is_taken_as_it_is(bundle_path: Path, private_cache: Path) -> None:
    assert resolve_bundle(bundle_path) == resolve_bundle(str(bundle_path)) == bundle_path
    assert not private_cache.exists()


def test_a_packed_file_is_unpacked_once(packed: Packed, private_cache: Path) -> None:
    path = resolve_bundle(packed.path)
    assert load_bundle(path).manifest.name == "tiny"
    assert path == private_cache / packed.digest
    before = (path / "manifest.json").stat().st_mtime_ns
    assert resolve_bundle(packed.path) == path
    assert (path / "manifest.json").stat().st_mtime_ns == before
    assert private_cache.stat().st_mode & 0o077 == 0


def test_an_address_is_fetched_once(site: Site, packed: Packed, private_cache: Path) -> None:
    source = f"{site.url}/tiny.zip?token=secret#sha256={packed.digest.upper()}"
    path = resolve_bundle(source)
    assert load_bundle(path).manifest.name == "tiny"
    assert resolve_bundle(source) == path
    assert site.asked == ["/tiny.zip?token=secret"]
    assert entries(private_cache) == [packed.digest]


def test_a_redirect_within_https_is_followed(site: Site, packed: Packed) -> None:
    site.redirects["/moved"] = "/tiny.zip"
    load_bundle(resolve_bundle(f"{site.url}/moved#sha256={packed.digest}"))
    assert site.asked == ["/moved", "/tiny.zip"]


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1:1/tiny.zip", "file:///etc/passwd", "ftp://127.0.0.1/tiny.zip"]
)
def test_a_redirect_out_of_https_is_refused(
    site: Site, packed: Packed, private_cache: Path, target: str
) -> None:
    site.redirects["/moved"] = target
    with pytest.raises(BundleError, match=r"leads away from https|status 302"):
        resolve_bundle(f"{site.url}/moved#sha256={packed.digest}")
    assert entries(private_cache) == []


def test_a_redirect_in_a_circle_ends(site: Site, packed: Packed) -> None:
    site.redirects["/moved"] = "/moved"
    with pytest.raises(BundleError, match="status 302"):
        resolve_bundle(f"{site.url}/moved#sha256={packed.digest}")
    assert len(site.asked) < 20


DIGEST = "0" * 64


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
        (f"https://127.0.0.1:99999/t.zip#sha256={DIGEST}", "cannot be had"),
        (f"https:///t.zip#sha256={DIGEST}", "cannot be had"),
        (f"https://127.0.0.1:1/t.zip?key=hunter2#sha256={DIGEST}", "onnection refused"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_in_a_sentence(source: str, says: str) -> None:
    with pytest.raises(BundleError, match=says) as caught:
        resolve_bundle(source)
    assert str(caught.value).isprintable()
    assert "hunter2" not in str(caught.value)


def test_another_file_than_was_asked_for_is_refused(site: Site, private_cache: Path) -> None:
    with pytest.raises(BundleError, match="is not the file that was asked for: its sha256 is"):
        resolve_bundle(f"{site.url}/tiny.zip#sha256={DIGEST}")
    assert entries(private_cache) == []


def test_a_missing_file_is_said(site: Site) -> None:
    with pytest.raises(BundleError, match="status 404"):
        resolve_bundle(f"{site.url}/other.zip#sha256={DIGEST}")


def test_a_transfer_that_breaks_off_is_said(
    site: Site, packed: Packed, private_cache: Path
) -> None:
    size = len(packed.content)
    site.declared["/tiny.zip"] = size + 10
    with pytest.raises(BundleError, match=f"broke off after {size} of {size + 10} bytes"):
        resolve_bundle(f"{site.url}/tiny.zip#sha256={packed.digest}")
    assert entries(private_cache) == []


def test_what_is_too_large_is_not_fetched(
    site: Site, packed: Packed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve, "MAX_PACKED_BYTES", 1000)
    with pytest.raises(BundleError, match="at most 1000 are allowed"):
        resolve_bundle(f"{site.url}/tiny.zip#sha256={packed.digest}")
    with pytest.raises(BundleError, match="larger than a packed bundle may be"):
        resolve_bundle(packed.path)


def test_a_server_that_drips_is_left(
    site: Site, packed: Packed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TOTAL_S", -1.0)
    with pytest.raises(BundleError, match="took more than"):
        resolve_bundle(f"{site.url}/tiny.zip#sha256={packed.digest}")


def test_a_server_that_says_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(download, "TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(BundleError, match="nothing came for"):
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
            assert site.asked == []


def test_a_hostile_archive_leaves_nothing(tmp_path: Path, private_cache: Path) -> None:
    (tmp_path / "evil.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    with pytest.raises(BundleError, match="has no manifest"):
        resolve_bundle(tmp_path / "evil.zip")
    assert entries(private_cache) == []


def test_a_killed_process_leaves_no_entry_and_blocks_nobody(
    packed: Packed, private_cache: Path
) -> None:
    """SIGKILL between the last file and the rename; the next one clears up and succeeds."""
    program = (
        "import os, signal, sys; from exports.bundle import cache, resolve\n"
        "cache.os.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "resolve.resolve_bundle(sys.argv[1])"
    )
    done = subprocess.run([sys.executable, "-c", program, str(packed.path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert entries(private_cache) == [cache.SCRATCH]
    load_bundle(resolve_bundle(packed.path))
    assert entries(private_cache) == [packed.digest]


def test_two_processes_at_once_agree(packed: Packed, private_cache: Path) -> None:
    program = (
        "import sys; from exports.bundle.resolve import resolve_bundle; "
        "print(resolve_bundle(sys.argv[1]))"
    )
    command = [sys.executable, "-c", program, str(packed.path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = [process.communicate(timeout=30)[0].strip() for process in both]
    assert outputs == [str(private_cache / packed.digest)] * 3
    assert entries(private_cache) == [packed.digest]


def test_a_cache_that_others_can_write_to_is_refused(packed: Packed, private_cache: Path) -> None:
    private_cache.mkdir(parents=True)
    private_cache.chmod(0o777)
    with pytest.raises(BundleError, match="can be written to by others"):
        resolve_bundle(packed.path)


def test_a_relative_cache_home_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_root() == tmp_path / ".cache" / "offramp" / "bundles"


def test_a_packed_bundle_is_read_only(packed: Packed, bundle_path: Path) -> None:
    refuse_cached(bundle_path)
    with pytest.raises(BundleError, match="read-only; unzip it"):
        refuse_cached(resolve_bundle(packed.path))


def test_the_bundle_that_comes_with_offramp_has_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_bundle("embedded") == embedded()
    (tmp_path / "embedded").mkdir()
    assert resolve_bundle("embedded") == Path("embedded")
