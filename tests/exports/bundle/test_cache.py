"""The bundle cache is private, and safe with several and with killed processes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from exports.bundle import cache
from exports.bundle.cache import refuse_cached
from exports.bundle.errors import BundleError
from exports.bundle.reader import load_bundle
from exports.bundle.resolve import resolve_bundle
from tests.exports.bundle.packed import Packed, cache_entries

pytestmark = pytest.mark.usefixtures("private_cache")


def test_a_killed_process_leaves_no_entry_and_no_lock(packed: Packed, private_cache: Path) -> None:
    """SIGKILL before the rename of a complete entry; the next process removes the files and succeeds."""
    program = (
        "import os, signal, sys; from exports.bundle import cache, resolve\n"
        "cache.os.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "resolve.resolve_bundle(sys.argv[1])"
    )
    completed = subprocess.run([sys.executable, "-c", program, str(packed.path)], check=False)
    assert completed.returncode == -signal.SIGKILL
    assert cache_entries(private_cache) == [cache.SCRATCH]
    load_bundle(resolve_bundle(packed.path))
    assert cache_entries(private_cache) == [packed.digest]


def test_concurrent_processes_get_the_same_entry(packed: Packed, private_cache: Path) -> None:
    program = (
        "import sys; from exports.bundle.resolve import resolve_bundle; "
        "print(resolve_bundle(sys.argv[1]))"
    )
    command = [sys.executable, "-c", program, str(packed.path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = [process.communicate(timeout=30)[0].strip() for process in processes]
    assert outputs == [str(private_cache / packed.digest)] * 3
    assert cache_entries(private_cache) == [packed.digest]


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
