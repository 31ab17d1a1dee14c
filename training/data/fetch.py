"""Published archives of data sets: downloaded, checked and unpacked in one step."""

from __future__ import annotations

import hashlib
import os
import tarfile
import tempfile
import zipfile
from pathlib import Path

from offramp.download import DownloadError, download
from training.errors import DataError

# Tiny ImageNet has 240 MB. Its server offers no https; the md5 is checked instead.
SCHEMES = frozenset({"http", "https"})
MAX_ARCHIVE_BYTES = 1 << 30
MAX_DOWNLOAD_S = 4 * 3600.0


def fetch_archive(url: str, md5: str, root: Path, folder: str) -> None:
    """Download the zip or tar archive at `url` and put its directory `folder` into `root`.

    The directory appears in one step; on an error nothing is left. Raises DataError if the download
    fails, the archive's md5 differs, or `folder` exists already.
    """
    target = root / folder
    if target.exists():
        raise DataError(f"{target} exists but is incomplete; move it away to download it again.")
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=f".{folder}-") as scratch:
            archive = Path(scratch) / "archive"
            if _download(url, archive) != md5:
                raise DataError(f"the file at {url} is not the official archive (its md5 differs).")
            unpacked = Path(scratch) / "unpacked"
            _unpack(archive, unpacked)
            os.rename(unpacked / folder, target)
    except DownloadError as error:
        raise DataError(str(error)) from error
    except OSError as error:
        raise DataError(f"{url} cannot be stored in {root}: {error}.") from error


def _download(url: str, archive: Path) -> str:
    """Write the body of `url` to `archive`; returns its md5."""
    digest = hashlib.md5()
    chunks = download(
        url,
        max_bytes=MAX_ARCHIVE_BYTES,
        max_s=MAX_DOWNLOAD_S,
        schemes=SCHEMES,
        label=f"fetching {url.rsplit('/', 1)[-1]}",
    )
    with archive.open("wb") as file:
        for chunk in chunks:
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def _unpack(archive: Path, target: Path) -> None:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(target)
    else:
        with tarfile.open(archive) as tar:
            tar.extractall(target, filter="data")
