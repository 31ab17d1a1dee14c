"""`offramp classify` on many files: none is left out, none stops the others, and a killed run goes on."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from pyarrow import parquet

from serving.bulk.errors import BulkError
from serving.bulk.run import _group
from serving.bulk.sources import find_images
from tests.commands import CommandResult, call
from tests.serving.conftest import Client
from tests.serving.requests import CLASSIFY, as_raw

BAD = b"text"


@pytest.fixture
def folder(tmp_path: Path, pngs: list[bytes]) -> Path:
    """Two photos in the folder, two below it, a damaged one, and a file that is no image."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.PNG", "more/c.png", "more/d.png")):
        (folder / name).write_bytes(pngs[10 * number])
    (folder / "bad.jpg").write_bytes(BAD)
    (folder / "notes.txt").write_bytes(b"no image")
    return folder


def run(bundle: Path, *arguments: object) -> CommandResult:
    return call("classify", *arguments, "--bundle", bundle)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# Which files


def test_a_folder_is_all_images_below_it_in_order(folder: Path) -> None:
    names = [path.relative_to(folder).as_posix() for path in find_images([str(folder)])]
    assert names == ["a.png", "b.PNG", "bad.jpg", "more/c.png", "more/d.png"]


def test_a_glob_is_what_it_matches_and_each_file_comes_once(folder: Path) -> None:
    found = find_images([f"{folder}/**/*.png", str(folder / "a.png"), str(folder / "notes.txt")])
    names = [path.relative_to(folder).as_posix() for path in found]
    assert names == ["a.png", "more/c.png", "more/d.png", "notes.txt"]


@pytest.mark.parametrize("name", ["nothing.png", "*.bmp", "empty"])
def test_an_argument_that_names_nothing_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(folder)
    Path("empty").mkdir()
    with pytest.raises(BulkError, match=name.replace("*", r"\*")):
        find_images([name])


def test_groups_are_bounded_in_files_and_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.bulk.run.GROUP_BYTES", 10)
    monkeypatch.setattr("serving.bulk.run.GROUP_FILES", 3)
    paths = [tmp_path / str(number) for number in range(5)]
    for path, size in zip(paths, (4, 4, 4, 40, 1), strict=True):
        path.write_bytes(b"x" * size)
    assert list(_group(paths)) == [paths[:2], paths[2:3], paths[3:4], paths[4:]]


# Answers


def test_the_rows_are_what_the_server_answers(
    client: Client, bundle_path: Path, folder: Path, tmp_path: Path
) -> None:
    done = run(bundle_path, folder, "-o", tmp_path / "rows.jsonl")
    assert done.code == 1
    assert "offramp: 1 of 5 images could not be classified." in done.err
    rows = lines(tmp_path / "rows.jsonl")
    assert [row["file"] for row in rows] == [str(path) for path in find_images([str(folder)])]
    for row in rows:
        served = client.post(CLASSIFY, **as_raw(Path(row["file"]).read_bytes())).json()
        assert row["predictions"] == served.get("predictions", [served])
    assert not (tmp_path / "rows.jsonl.journal").exists()


def test_bad_files_are_reported_on_stderr_and_the_others_printed(
    bundle_path: Path, folder: Path
) -> None:
    done = run(bundle_path, folder)
    assert done.code == 1
    assert f"{folder / 'bad.jpg'}: The image is in an unknown format" in done.err
    assert sum(f"{folder}" in line for line in done.out.splitlines()) == 4
    done = run(bundle_path, folder, "--json")
    assert len(done.out.splitlines()) == 5


def test_the_exit_code_says_whether_any_image_was_classified(
    bundle_path: Path, folder: Path
) -> None:
    assert run(bundle_path, folder / "a.png", folder / "more").code == 0
    assert run(bundle_path, folder / "bad.jpg", folder / "notes.txt").code == 2


def test_a_file_that_cannot_be_read_has_an_error(bundle_path: Path, folder: Path) -> None:
    (folder / "y.png").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "z.png")
    done = run(bundle_path, folder, "--json")
    *_, gone, pipe, _, _ = map(json.loads, done.out.splitlines())
    assert [one["predictions"][0]["error"] for one in (gone, pipe)] == [
        "The file cannot be read: No such file or directory.",
        "It is a pipe or a device, not a file.",
    ]
    assert gone["predictions"][0]["code"] == pipe["predictions"][0]["code"] == "unreadable"


def test_names_and_labels_cannot_command_the_terminal(
    tmp_path: Path, bundle_path: Path, pngs: list[bytes]
) -> None:
    bundle = Path(shutil.copytree(bundle_path, tmp_path / "bundle"))
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["labels"] = [f"\x1b[2J{label}" for label in manifest["labels"]]
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    for name, content in (("\x1b[2Ja.png", pngs[0]), ("\x1b[2Jb.png", BAD), ("c.png", BAD)):
        (tmp_path / name).write_bytes(content)
    several, one = run(bundle, *tmp_path.glob("*.png")), run(bundle, *tmp_path.glob("*b.png"))
    # An escape sequence as a whole would not be seen here: it is left out where there is no terminal.
    assert several.out.count("\N{REPLACEMENT CHARACTER}[2J") > 5
    for done in (several, one):
        assert "\N{REPLACEMENT CHARACTER}[2Jb.png" in done.err
        assert "\x1b" not in done.out + done.err


def test_without_a_terminal_progress_is_printed_with_the_time_left(
    bundle_path: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.bulk.cli.PROGRESS_EVERY_S", 0)
    monkeypatch.setattr("serving.bulk.run.GROUP_FILES", 2)
    done = run(bundle_path, folder, "-o", tmp_path / "rows.csv")
    shown = [line.partition(", ETA ") for line in done.err.splitlines() if "ETA" in line]
    assert [count for count, _, _ in shown] == [f"{n} of 5 images" for n in (2, 4, 5)]
    assert shown[-1][2] == "0 s"
    assert "5 images, 1 with errors" in done.err


# Tables


def test_csv_has_a_row_for_each_image(bundle_path: Path, folder: Path, tmp_path: Path) -> None:
    for name in ("rows.csv", "rows.jsonl"):
        run(bundle_path, folder, "-o", tmp_path / name)
    with (tmp_path / "rows.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    for row, wanted in zip(table, lines(tmp_path / "rows.jsonl"), strict=True):
        (entry,) = wanted["predictions"]
        assert row["file"] == wanted["file"]
        if "error" in entry:
            assert (row["error"], row["code"], row["label"]) == (*entry.values(), "")
        else:
            assert row["label"] == entry["label"]
            assert float(row["confidence"]) == entry["confidence"]
            assert json.loads(row["top_k"]) == entry["top_k"]


def test_parquet_has_the_same_rows(bundle_path: Path, folder: Path, tmp_path: Path) -> None:
    for name in ("rows.parquet", "rows.csv"):
        run(bundle_path, folder, "-o", tmp_path / name)
    table = parquet.read_table(tmp_path / "rows.parquet").to_pylist()
    with (tmp_path / "rows.csv").open(newline="", encoding="utf-8") as file:
        for row, wanted in zip(table, csv.DictReader(file), strict=True):
            assert {
                key: "" if value is None else str(value) for key, value in row.items()
            } == wanted


def test_parquet_without_pyarrow_names_the_extra(
    bundle_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    done = run(bundle_path, folder, "-o", folder / "rows.parquet")
    assert done.code == 2
    assert "pip install 'offramp[parquet]'" in done.err


def test_another_name_or_an_existing_file_is_refused(
    bundle_path: Path, folder: Path, tmp_path: Path
) -> None:
    assert ".csv, .jsonl or .parquet" in run(bundle_path, folder, "-o", "rows.txt").err
    (tmp_path / "rows.csv").write_text("mine")
    done = run(bundle_path, folder, "-o", tmp_path / "rows.csv")
    assert done.refused_in_one_sentence
    assert "exists already" in done.err
    assert (tmp_path / "rows.csv").read_text() == "mine"


# Interruptions


def interrupted(bundle: Path, folder: Path, output: Path, monkeypatch: Any, rows: int) -> None:
    """A run that ends after `rows` rows, without cleaning up."""

    def stop(paths: Any) -> Any:
        yield list(paths[:rows])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("serving.bulk.run._group", stop)
        patched.setattr("serving.bulk.run.SPARE_GROUPS", -1)
        patched.setenv("OFFRAMP_WORKERS", "2")
        assert run(bundle, folder, "-o", output).code == 130


def test_an_interrupted_run_goes_on_with_what_is_left(
    bundle_path: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, journal = tmp_path / "rows.jsonl", tmp_path / "rows.jsonl.journal"
    interrupted(bundle_path, folder, output, monkeypatch, rows=3)
    assert not output.exists()
    with journal.open("ab") as file:  # a line that a kill has cut off
        file.write(b'{"file": "')
    read: list[str] = []
    monkeypatch.setattr(
        "serving.bulk.run._Bulk._content",
        lambda self, path: read.append(path.name) or path.read_bytes(),
    )
    assert run(bundle_path, folder, "-o", output).code == 1
    assert read == ["c.png", "d.png"]
    assert [row["file"] for row in lines(output)] == [
        str(path) for path in find_images([str(folder)])
    ]


def test_a_journal_of_another_run_is_refused(
    bundle_path: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "rows.csv"
    interrupted(bundle_path, folder, output, monkeypatch, rows=2)
    done = run(bundle_path, folder, "-o", output, "--threshold", 0)
    assert done.refused_in_one_sentence
    assert "other options" in done.err
    Path(f"{output}.journal").write_bytes(b"{}\nnothing\n")
    assert "delete it" in run(bundle_path, folder, "-o", output).err


def test_a_killed_run_loses_and_repeats_no_row(
    bundle_path: Path, pngs: list[bytes], tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(2000):
        (photos / f"{number:04}.png").write_bytes(pngs[number % len(pngs)])
    output, journal = tmp_path / "rows.jsonl", tmp_path / "rows.jsonl.journal"
    command = [sys.executable, "-m", "offramp.cli", "classify", "photos"]
    command += ["-o", str(output), "--bundle", str(bundle_path)]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    while not journal.exists() or journal.stat().st_size < 20_000:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = journal.read_bytes()
    kept = kept[: kept.rindex(b"\n") + 1]
    assert not output.exists()
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    content = output.read_bytes()
    # The rows from before the kill are kept as they are, each file has one, in order.
    assert content.startswith(kept[kept.index(b"\n") + 1 :])
    names = [orjson.loads(line)["file"] for line in content.splitlines()]
    assert names == [f"photos/{number:04}.png" for number in range(2000)]


def test_two_runs_do_not_share_an_output(
    bundle_path: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "rows.csv"
    interrupted(bundle_path, folder, output, monkeypatch, rows=2)
    with Path(f"{output}.journal").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        done = run(bundle_path, folder, "-o", output)
    assert done.refused_in_one_sentence
    assert "another process" in done.err
