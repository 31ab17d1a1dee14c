"""The installed uvicorn has everything that the server overrides; one that lacks something is refused."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import uvicorn
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

import serving.http
from serving.http.uvicorn_internals import (
    INTERNALS,
    SUPPORTED_VERSIONS,
    UnsupportedUvicornError,
    check_uvicorn,
)
from tests.serving.http.oldest_uvicorn import allowed_uvicorn, oldest_uvicorn

README = (Path(serving.http.__file__).parent / "README.md").read_text("utf-8")


def remove_method(patch: pytest.MonkeyPatch) -> None:
    patch.delattr(HttpToolsProtocol, "_start_asgi_task")


def remove_attribute(patch: pytest.MonkeyPatch) -> None:
    def without_pipeline(self: HttpToolsProtocol) -> None:
        self.config = self.loop = self.parser = self.connections = None  # type: ignore[assignment]

    patch.setattr(HttpToolsProtocol, "__init__", without_pipeline)


def remove_constant(patch: pytest.MonkeyPatch) -> None:
    patch.delattr(httptools_impl, "STATUS_LINE")


def remove_flow_control(patch: pytest.MonkeyPatch) -> None:
    patch.delattr(FlowControl, "resume_reading")


@pytest.mark.parametrize(
    ("remove", "name"),
    [
        (remove_method, r"HttpToolsProtocol\._start_asgi_task"),
        (remove_attribute, r"HttpToolsProtocol\.transport"),
        (remove_constant, r"uvicorn\.protocols\.http\.httptools_impl\.STATUS_LINE"),
        (remove_flow_control, r"FlowControl\.resume_reading"),
    ],
)
def test_a_uvicorn_that_lacks_something_is_refused_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, remove: Callable[[pytest.MonkeyPatch], None], name: str
) -> None:
    check_uvicorn()
    remove(monkeypatch)
    with pytest.raises(
        UnsupportedUvicornError,
        match=rf"^Offramp's HTTP server needs uvicorn {re.escape(SUPPORTED_VERSIONS)}; "
        rf"version {re.escape(uvicorn.__version__)} has no {name}\.$",
    ):
        check_uvicorn()


def test_the_command_prints_that_sentence(bundle_path: Path) -> None:
    code = (
        "from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol\n"
        "del HttpToolsProtocol._start_asgi_task\n"
        "import sys; from offramp.cli import main\n"
        f"sys.argv = ['offramp', 'serve', {str(bundle_path)!r}, '--port', '0']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("offramp: Offramp's HTTP server needs uvicorn ")
    assert done.stderr.count("\n") == 1


def test_pyproject_allows_the_versions_that_the_error_names() -> None:
    assert allowed_uvicorn() == SUPPORTED_VERSIONS
    assert SUPPORTED_VERSIONS.startswith(f">={oldest_uvicorn()},<")


def test_the_readme_gives_a_reason_for_every_name() -> None:
    table = "\n".join(line for line in README.splitlines() if line.startswith("|"))
    for entry in INTERNALS:
        assert entry.name in table or entry.methods, entry
        for name in (*entry.methods, *entry.attributes):
            assert re.search(rf"[`.]{name}`", table), f"{entry.name}.{name}"
