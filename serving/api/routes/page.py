"""GET / and /page/*: the web page, served from memory.

Starlette's StaticFiles reads the disk in a thread for every request, which takes twice as long or more.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from serving.errors import NotFoundError

FOLDER = files("serving") / "page"
START = "index.html"
MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "webp": "image/webp",
}
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Names are the same in every version, so browsers must revalidate their copies.
    "Cache-Control": "no-cache",
}
router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class PageFile:
    """A file of the page: its bytes, media type and ETag."""

    content: bytes
    media_type: str
    etag: str


def read_page(folder: Traversable = FOLDER) -> dict[str, PageFile]:
    """The page's files by their path below `folder`; files of other types are left out."""
    found: dict[str, PageFile] = {}
    for entry in folder.iterdir():
        if entry.is_dir():
            below = read_page(entry)
            found |= {f"{entry.name}/{path}": file for path, file in below.items()}
        elif media_type := MEDIA_TYPES.get(entry.name.rpartition(".")[2]):
            content = entry.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            found[entry.name] = PageFile(content, media_type, etag)
    return found


_PAGE = read_page()


@router.api_route("/", methods=["GET", "HEAD"])
async def start(request: Request) -> Response:
    """The page itself."""
    return _answer(request, _PAGE[START])


@router.api_route("/page/{path:path}", methods=["GET", "HEAD"])
async def part(path: str, request: Request) -> Response:
    """A style sheet, module or image of the page."""
    file = _PAGE.get(path)
    if file is None:
        raise NotFoundError("There is nothing at this address.")
    return _answer(request, file)


def _answer(request: Request, file: PageFile) -> Response:
    headers = {**HEADERS, "ETag": file.etag}
    cached = [tag.strip() for tag in request.headers.get("if-none-match", "").split(",")]
    if file.etag in cached:
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)
