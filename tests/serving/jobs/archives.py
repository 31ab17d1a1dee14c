"""Bodies of jobs: archives and forms of the same files."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Mapping
from typing import Any

Files = Mapping[str, bytes]
ZIP = {"Content-Type": "application/zip"}


def zipped(files: Files) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, file in files.items():
            archive.writestr(name, file)
    return content.getvalue()


def tarred(files: Files, compression: str = "", **options: Any) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=f"w:{compression}", **options) as archive:
        for name, file in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(file)
            archive.addfile(info, io.BytesIO(file))
    return content.getvalue()


def as_zip(files: Files) -> dict[str, Any]:
    return {"content": zipped(files), "headers": ZIP}


def as_tar(files: Files) -> dict[str, Any]:
    return {"content": tarred(files), "headers": {"Content-Type": "application/x-tar"}}


def as_tar_gz(files: Files) -> dict[str, Any]:
    # curl's default type.
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    return {"content": tarred(files, "gz"), "headers": kind}


def as_form(files: Files) -> dict[str, Any]:
    return {"files": [("files", (name, file, "image/png")) for name, file in files.items()]}
