"""Files and directories are written completely or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from offramp.errors import WriteError
from offramp.files import new_directory, new_file, replacing, write_whole


def test_a_second_writer_of_the_same_directory_is_refused(tmp_path: Path) -> None:
    with new_directory(tmp_path / "b") as first:
        (first / "mine").write_text("1")
        with (
            pytest.raises(WriteError, match="another process is writing"),
            new_directory(tmp_path / "b"),
        ):
            pass
    assert (tmp_path / "b" / "mine").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_directory_that_another_process_created_meanwhile_is_left_alone(tmp_path: Path) -> None:
    def write() -> None:
        with new_directory(tmp_path / "b") as part:
            (part / "mine").write_text("1")
            (tmp_path / "b").mkdir()

    with pytest.raises(WriteError, match="was created by another process"):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    assert list((tmp_path / "b").iterdir()) == []


def test_the_files_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    part = tmp_path / ".b.part"
    (part / "folder").mkdir(parents=True)
    (part / "file").write_text("old")
    with new_directory(tmp_path / "b") as folder:
        assert list(folder.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_an_existing_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with pytest.raises(WriteError, match="exists already"), new_directory(tmp_path / "b"):
        pass


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_whole(file, b"old")

    def fail() -> None:
        with replacing(file) as part:
            part.write_bytes(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(WriteError, match=r"file cannot be written \(No space left on device\)"):
        fail()
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_the_rest_of_a_killed_writer_of_a_file_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".f.part").mkdir()
    (tmp_path / ".f.part" / "f").write_text("half")
    with new_file(tmp_path / "f") as part:
        part.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_text() == "whole"


def test_an_existing_file_is_refused_and_a_failed_one_removed(tmp_path: Path) -> None:
    def fail() -> None:
        with new_file(tmp_path / "f") as part:
            part.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fail()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "f").write_text("old")
    with pytest.raises(WriteError, match="exists already"), new_file(tmp_path / "f"):
        pass


def test_on_a_read_only_disk_writing_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    file = tmp_path / "file"
    file.write_bytes(b"old")
    monkeypatch.setattr(Path, "write_bytes", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(WriteError, match=r"cannot be written \(Read-only file system\)"):
        write_whole(file, b"new")
    assert file.read_bytes() == b"old"
