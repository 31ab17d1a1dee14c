"""Packing is reproducible, and hostile archives are refused."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exports.bundle import archive
from exports.bundle.archive import pack_bundle, unpack_bundle
from exports.bundle.errors import BundleError
from exports.bundle.reader import load_bundle, sha256
from offramp.errors import WriteError
from tests.exports.bundle.packed import Packed


@pytest.fixture(scope="session")
def packed_bytes(packed: Packed) -> bytes:
    return packed.content


def rewritten(
    packed_bytes: bytes, change: Callable[[zipfile.ZipFile], object] | None = None
) -> bytes:
    """The packed bundle as another tool would write it, deflated, with `change` applied last."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(packed_bytes)) as old,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
        if change:
            change(new)
    return out.getvalue()


def zip_entry(name: str, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    return info


def test_the_same_bundle_gives_the_same_bytes(
    bundle_path: Path, packed_bytes: bytes, tmp_path: Path
) -> None:
    for file in bundle_path.iterdir():
        os.utime(file)
    digest = pack_bundle(bundle_path, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == packed_bytes
    assert digest == sha256(packed_bytes)


def test_unpacking_restores_what_was_packed(
    bundle_path: Path, packed_bytes: bytes, tmp_path: Path
) -> None:
    unpack_bundle(io.BytesIO(packed_bytes), tmp_path, "tiny.zip")
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == {
        f.name: f.read_bytes() for f in bundle_path.iterdir()
    }
    assert load_bundle(tmp_path).manifest == load_bundle(bundle_path).manifest


def test_other_tools_can_open_it_and_their_zips_can_be_read(
    packed_bytes: bytes, tmp_path: Path
) -> None:
    (tmp_path / "tiny.zip").write_bytes(packed_bytes)
    subprocess.run(
        [sys.executable, "-m", "zipfile", "-e", "tiny.zip", "out"], cwd=tmp_path, check=True
    )
    load_bundle(tmp_path / "out")
    (tmp_path / "other").mkdir()
    unpack_bundle(io.BytesIO(rewritten(packed_bytes)), tmp_path / "other", "other.zip")
    load_bundle(tmp_path / "other")


def test_a_damaged_bundle_is_not_packed(bundle_path: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    for file in bundle_path.iterdir():
        (work / file.name).write_bytes(file.read_bytes())
    (work / "stage2.onnx").write_bytes(b"other")
    with pytest.raises(BundleError, match=r"stage2.onnx is damaged"):
        pack_bundle(work, tmp_path / "out.zip")
    assert [f.name for f in tmp_path.iterdir()] == ["work"]


def test_files_that_the_manifest_does_not_list_are_not_packed(
    bundle_path: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    for file in bundle_path.iterdir():
        (work / file.name).write_bytes(file.read_bytes())
    (work / "README.md").write_text("# tiny")
    (work / ".env").write_text("SECRET=1")
    pack_bundle(work, tmp_path / "out.zip")
    with zipfile.ZipFile(tmp_path / "out.zip") as archive_file:
        assert set(archive_file.namelist()) == {f.name for f in bundle_path.iterdir()} | {
            "README.md"
        }


def test_an_existing_file_is_not_overwritten(bundle_path: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.zip").write_text("keep")
    with pytest.raises(WriteError, match="exists already"):
        pack_bundle(bundle_path, tmp_path / "mine.zip")
    assert (tmp_path / "mine.zip").read_text() == "keep"


def named(name: str, mode: int = stat.S_IFREG | 0o644) -> Callable[[zipfile.ZipFile], object]:
    return lambda zip_: zip_.writestr(zip_entry(name, mode), b"x")


def twice(zip_: zipfile.ZipFile) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        zip_.writestr("policy.json", b"{}")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (named("../evil"), r"holds '../evil', which is not a file name"),
        (named("/etc/evil"), "which is not a file name"),
        (named("..\\evil"), "which is not a file name"),
        (named("C:evil"), "which is not a file name"),
        (named("a/b"), "which is not a file name"),
        (named("a/", stat.S_IFDIR | 0o755), "which is not a file name"),
        (named(".hidden"), "which is not a file name"),
        (named("evil\x1b[2J\n"), "which is not a file name"),
        (named("é"), "which is not a file name"),
        (named("n" * 101), "which is not a file name"),
        (named("link", stat.S_IFLNK | 0o777), "holds link, which is not a plain file"),
        (named("pipe", stat.S_IFIFO | 0o644), "holds pipe, which is not a plain file"),
        (named("device", stat.S_IFCHR | 0o644), "holds device, which is not a plain file"),
        (named("Stage1.ONNX"), "holds Stage1.ONNX twice"),
        (twice, "holds policy.json twice"),
    ],
)
def test_entries_that_no_bundle_has_are_refused(
    packed_bytes: bytes, tmp_path: Path, change: Callable[[zipfile.ZipFile], object], says: str
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(BundleError, match=says) as caught:
        unpack_bundle(io.BytesIO(rewritten(packed_bytes, change)), target, "evil.zip")
    assert str(caught.value).isprintable()
    assert [f.name for f in tmp_path.rglob("*")] == ["target"]


def many(zip_: zipfile.ZipFile) -> None:
    for index in range(archive.MAX_FILES + 1):
        zip_.writestr(f"f{index}", b"")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: b"", "too short"),
        (lambda p: p[: len(p) // 2], "does not end as a zip file"),
        (lambda p: p + b"tail", "does not end as a zip file"),
        (lambda p: b"head" + p, "not a single, whole zip file"),
        (lambda p: rewritten(p, many), "more than the 128 files"),
        (lambda p: rewritten(p, lambda z: setattr(z, "comment", b"hello")), "without a comment"),
        (lambda p: p.replace(b"PK\x05\x06", b"PK\x06\x07" + b"\0" * 16 + b"PK\x05\x06"), "whole"),
        (lambda p: p.replace(b'"name":"tiny"', b'"name":"tinx"'), "Bad CRC-32"),
        (lambda p: p.replace(b"manifest.json", b"manifest.jsom"), "it has no manifest.json"),
        (lambda p: p.replace(b"stage1.onnx", b"stage1\0onnx"), "which is not a file name"),
    ],
)
def test_a_malformed_zip_is_refused(
    packed_bytes: bytes, tmp_path: Path, make: Callable[[bytes], bytes], says: str
) -> None:
    with pytest.raises(BundleError, match=says) as caught:
        unpack_bundle(io.BytesIO(make(packed_bytes)), tmp_path, "bad.zip")
    assert str(caught.value).startswith("bad.zip ")


def test_an_encrypted_zip_is_refused(packed_bytes: bytes, tmp_path: Path) -> None:
    content = bytearray(packed_bytes)
    content[packed_bytes.rindex(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(BundleError, match="encrypted"):
        unpack_bundle(io.BytesIO(content), tmp_path, "secret.zip")


def test_a_zip_bomb_is_stopped_while_it_is_inflated(
    packed_bytes: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "CHUNK_BYTES", 1 << 16)
    bomb = rewritten(packed_bytes, lambda zip_: zip_.writestr("exit1.onnx", bytes(1 << 26)))
    limit = archive.RATIO_ALLOWANCE_BYTES + archive.MAX_RATIO * len(bomb)
    assert limit < 1 << 25
    with pytest.raises(BundleError, match="unpacks to more than a bundle may hold"):
        unpack_bundle(io.BytesIO(bomb), tmp_path, "bomb.zip")
    assert sum(f.stat().st_size for f in tmp_path.iterdir()) <= limit


def test_a_false_size_in_a_header_is_refused(packed_bytes: bytes, tmp_path: Path) -> None:
    """Both headers of the entry say one byte, but it inflates to 64 MiB."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as zip_:
        zip_.writestr("manifest.json", bytes(1 << 26))
    size = (1 << 26).to_bytes(4, "little")
    content = out.getvalue()
    assert content.count(size) == 2
    crc = zlib.crc32(bytes(1 << 26)).to_bytes(4, "little")
    lying = content.replace(size, (1).to_bytes(4, "little"))
    assert crc in lying
    with pytest.raises(BundleError, match="is not a packed bundle: Bad CRC-32"):
        unpack_bundle(io.BytesIO(lying), tmp_path, "false.zip")
    assert sum(f.stat().st_size for f in tmp_path.iterdir()) <= 1


def test_the_unpacked_size_has_an_absolute_limit(
    packed_bytes: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_UNPACKED_BYTES", 1000)
    with pytest.raises(BundleError, match="unpacks to more"):
        unpack_bundle(io.BytesIO(packed_bytes), tmp_path, "big.zip")


@given(data=st.data())
def test_a_damaged_zip_is_refused_or_harmless(
    packed_bytes: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(rewritten(packed_bytes))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    target = tmp_path_factory.mktemp("fuzz")
    try:
        unpack_bundle(io.BytesIO(content), target, "fuzz.zip")
        load_bundle(target)
    except BundleError as error:
        assert str(error).isprintable()  # noqa: PT017 - some damage is harmless
