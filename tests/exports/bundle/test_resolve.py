"""A bundle can be a directory, a packed file, or an https address; the last over real TLS."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from exports.bundle import cache, resolve
from exports.bundle.archive import pack_bundle
from exports.bundle.cache import refuse_cached
from exports.bundle.errors import BundleError
from exports.bundle.reader import load_bundle
from exports.bundle.resolve import resolve_bundle
from exports.embedded import embedded
from tests.file_server import FileServer, file_server, trust


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


@pytest.fixture
def server(packed: Packed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A trusted server over TLS with the packed bundle /tiny.zip."""
    authority = trustme.CA()
    trust(authority, tmp_path, monkeypatch)
    with file_server(authority) as server:
        server.bodies["/tiny.zip"] = packed.content
        yield server


def entries(root: Path) -> list[str]:
    """The names in the cache, without its lock."""
    return sorted(f.name for f in root.iterdir() if f.name != ".lock") if root.exists() else []


def test_a_directory_is_returned_unchanged(bundle_path: Path, private_cache: Path) -> None:
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


def test_an_address_is_downloaded_once(
    server: FileServer, packed: Packed, private_cache: Path
) -> None:
    source = f"{server.url}/tiny.zip?token=secret#sha256={packed.digest.upper()}"
    path = resolve_bundle(source)
    assert load_bundle(path).manifest.name == "tiny"
    assert resolve_bundle(source) == path
    assert server.requests == ["/tiny.zip?token=secret"]
    assert entries(private_cache) == [packed.digest]


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
    assert entries(private_cache) == []


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
    assert entries(private_cache) == []


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
    assert entries(private_cache) == []


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


def test_a_hostile_archive_leaves_nothing(tmp_path: Path, private_cache: Path) -> None:
    (tmp_path / "evil.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    with pytest.raises(BundleError, match="has no manifest"):
        resolve_bundle(tmp_path / "evil.zip")
    assert entries(private_cache) == []


def test_a_killed_process_leaves_no_entry_and_blocks_nobody(
    packed: Packed, private_cache: Path
) -> None:
    """SIGKILL between the last file and the rename; the next process cleans up and succeeds."""
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
