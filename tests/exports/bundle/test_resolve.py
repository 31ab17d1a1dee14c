"""A bundle can be a directory, a packed file, or the one that ships with Offramp."""

from __future__ import annotations

from pathlib import Path

import pytest

from exports.bundle.errors import BundleError
from exports.bundle.reader import load_bundle, read_manifest
from exports.bundle.resolve import EMBEDDED, resolve_bundle
from tests.exports.bundle.packed import Packed, cache_entries

pytestmark = pytest.mark.usefixtures("private_cache")


def test_a_directory_is_returned_as_it_is(bundle_path: Path, private_cache: Path) -> None:
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


def test_a_hostile_archive_leaves_nothing_in_the_cache(tmp_path: Path, private_cache: Path) -> None:
    (tmp_path / "evil.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    with pytest.raises(BundleError, match="has no manifest"):
        resolve_bundle(tmp_path / "evil.zip")
    assert cache_entries(private_cache) == []


@pytest.mark.parametrize("name", EMBEDDED)
def test_an_embedded_bundle_has_a_name_that_a_directory_can_override(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_manifest(resolve_bundle(name)).name == name
    (tmp_path / name).mkdir()
    assert resolve_bundle(name) == Path(name)
