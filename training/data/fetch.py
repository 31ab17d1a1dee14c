"""Published archives, fetched whole or not at all."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
from pathlib import Path

from rich.console import Console
from rich.progress import wrap_file

from training.errors import DataError


def fetch_archive(url: str, md5: str, root: Path, folder: str) -> None:
    """Download the zip or tar archive at `url` and put its directory `folder` into `root`.

    Everything happens in a directory beside the target, which appears in one step; whatever goes
    wrong, nothing is left. Raises DataError if it cannot be fetched, its md5 differs, or `folder`
    is there already.
    """
    target = root / folder
    if target.exists():
        raise DataError(f"{target} is there but not whole; move it away to download it again.")
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=f".{folder}-") as scratch:
            archive = Path(scratch) / "archive"
            _download(url, archive)
            with archive.open("rb") as file:
                if hashlib.file_digest(file, "md5").hexdigest() != md5:
                    raise DataError(
                        f"what {url} gave is not the official archive (its md5 differs)."
                    )
            unpacked = Path(scratch) / "unpacked"
            _unpack(archive, unpacked)
            os.rename(unpacked / folder, target)
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"{url} could not be downloaded to {root}: {error}.") from error


def _download(url: str, archive: Path) -> None:
    with urllib.request.urlopen(url, timeout=60) as source, archive.open("wb") as target:
        reader = wrap_file(
            source,
            int(source.headers.get("Content-Length") or 0),
            description=f"fetching {url.rsplit('/', 1)[-1]}",
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        with reader as shown:
            shutil.copyfileobj(shown, target, 1 << 20)


def _unpack(archive: Path, target: Path) -> None:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(target)
    else:
        with tarfile.open(archive) as tar:
            tar.extractall(target, filter="data")
