"""The directory of records: rotation, the cap, and what is left after a crash."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from exports.tuning.requests.recorded import labels_file, record_files, whole_lines
from serving.errors import SettingsError
from serving.recording.store import FILES, RecordStore
from tests.serving.recording.lines import line

CAP = 1 << 20


@pytest.fixture
def store(tmp_path: Path) -> RecordStore:
    return RecordStore(tmp_path / "records", CAP)


def bytes_in(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.iterdir())


def test_records_are_whole_lines_in_the_order_they_came(store: RecordStore, tmp_path: Path) -> None:
    lines = [line(f"id-{i}") for i in range(10)]
    store.append(lines[:4])
    store.append(lines[4:])
    (file,) = record_files(tmp_path / "records")
    assert [content for _, content in whole_lines(file)] == lines


def test_files_rotate_and_the_oldest_are_removed_below_the_cap(
    store: RecordStore, tmp_path: Path
) -> None:
    for i in range(600):
        store.append([line(f"id-{i}", pad="x" * 4000)])
        assert bytes_in(tmp_path / "records") <= CAP
    files = record_files(tmp_path / "records")
    assert len(files) > FILES // 2
    assert max(file.stat().st_size for file in files) <= CAP // FILES
    assert store.find("id-599", 0) is not None
    assert store.find("id-0", 0) is None
    assert bytes_in(tmp_path / "records") > 0.8 * CAP


def test_labels_are_removed_with_their_records(store: RecordStore, tmp_path: Path) -> None:
    store.append([line("first")])
    assert store.label(("first", 0, "t"), 3)
    (first,) = record_files(tmp_path / "records")
    assert labels_file(first).exists()
    for i in range(600):
        store.append([line(f"id-{i}", pad="x" * 4000)])
    assert not labels_file(first).exists()
    assert not store.label(("first", 0, "t"), 3)


def test_a_record_is_found_by_any_printable_id(store: RecordStore) -> None:
    ids = ['"', "\\", '","image":', "a" * 128, "{}", "\\u0022", "plain"]
    store.append([line(request_id, image=7) for request_id in ids])
    for request_id in ids:
        record = store.find(request_id, 7)
        assert record is not None
        assert record["id"] == request_id
        assert store.find(request_id, 0) is None
    assert store.find("other", 7) is None


def test_the_latest_record_of_an_id_is_found(store: RecordStore) -> None:
    store.append([line("same", time="1"), line("same", time="2")])
    record = store.find("same", 0)
    assert record is not None
    assert record["time"] == "2"


def test_the_same_label_again_writes_nothing(store: RecordStore, tmp_path: Path) -> None:
    store.append([line("a")])
    key = ("a", 0, "t")
    assert store.label(key, 1)
    assert store.label(key, 1)
    labels = labels_file(record_files(tmp_path / "records")[0])
    assert len(list(whole_lines(labels))) == 1
    assert store.label(key, 2)
    assert len(list(whole_lines(labels))) == 2


def test_another_store_continues_with_what_is_there(store: RecordStore, tmp_path: Path) -> None:
    store.append([line("a"), line("b")])
    store.label(("a", 0, "t"), 1)
    store.close()
    again = RecordStore(tmp_path / "records", CAP)
    assert again.find("b", 0) is not None
    again.append([line("c")])
    assert len(record_files(tmp_path / "records")) == 2
    again.label(("a", 0, "t"), 1)
    again.label(("b", 0, "t"), 2)
    labels = labels_file(record_files(tmp_path / "records")[0])
    assert len(list(whole_lines(labels))) == 2


def test_a_line_that_was_cut_by_a_crash_is_ignored(store: RecordStore, tmp_path: Path) -> None:
    store.append([line("a")])
    store.close()
    (file,) = record_files(tmp_path / "records")
    with file.open("ab") as end:
        end.write(line("cut")[:-9])
    again = RecordStore(tmp_path / "records", CAP)
    assert again.find("a", 0) is not None
    assert again.find("cut", 0) is None


def test_a_full_disk_leaves_whole_lines_and_no_empty_files(
    store: RecordStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.append([line("a")])
    room = 20
    whole_pwrite = os.pwrite

    def pwrite(handle: int, content: bytes, offset: int) -> int:
        nonlocal room
        if room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = whole_pwrite(handle, content[:room], offset)
        room -= written
        return written

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        for _ in range(3):
            with pytest.raises(OSError, match="No space left"):
                store.append([line("b"), line("c")])
    store.append([line("d")])
    files = record_files(tmp_path / "records")
    assert [content for file in files for _, content in whole_lines(file)] == [
        line("a"),
        line("d"),
    ]
    assert len(files) == 2


def test_two_servers_do_not_share_a_directory(store: RecordStore, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="Another server"):
        RecordStore(tmp_path / "records", CAP)
    store.close()
    RecordStore(tmp_path / "records", CAP)


def test_a_directory_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot be recorded"):
        RecordStore(tmp_path / "file", CAP)


def test_files_that_are_no_records_are_refused(tmp_path: Path) -> None:
    (tmp_path / "requests-1.jsonl").write_text("hello\n")
    with pytest.raises(SettingsError, match="not records"):
        RecordStore(tmp_path, CAP)
