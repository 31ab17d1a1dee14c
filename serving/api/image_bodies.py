"""Reading the images of a request: one file, a multipart form, or base64 in JSON."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from functools import lru_cache

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from serving.api.asgi.headers import header
from serving.api.json_body import file_of_base64, parse_json
from serving.errors import InvalidRequestError, UnsupportedTypeError
from serving.settings import Settings

# Documented; every other image type is accepted, too.
IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp", "application/octet-stream")
# What curl sends by default, and what clients send that do not know better. The content decides.
UNSPECIFIC_TYPES = frozenset({"application/octet-stream", "application/x-www-form-urlencoded"})
FIELD = "files"
# Larger JSON is parsed in a thread: it takes milliseconds, which would block the event loop.
MAX_INLINE_BYTES = 64 * 1024
# Clients choose the type, so the cache is bounded.
MAX_CACHED_TYPES = 128
# Of a multipart body before its first boundary.
MAX_PREAMBLE_BYTES = 8192
# RFC 2046, section 5.1.1.
BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")


async def read_images(request: Request, settings: Settings) -> list[bytes]:
    """The files in the body of `request`, at least one.

    Raises UnsupportedTypeError for any other media type, InvalidRequestError if the body is malformed or has
    more than `settings.max_images` images, and TooLargeError through the middleware that counts the bytes.
    """
    kind = media_type(header(request.scope, b"content-type"))
    if is_one_image(kind):
        return [await request.body()]
    if kind == "multipart/form-data":
        files = await _multipart(request, settings.max_images, settings.max_body_bytes)
    elif kind == "application/json":
        body = await request.body()
        files = (
            _json(body) if len(body) <= MAX_INLINE_BYTES else await asyncio.to_thread(_json, body)
        )
    else:
        raise UnsupportedTypeError(
            "The Content-Type must be image/jpeg or another image type, application/octet-stream, "
            "multipart/form-data or application/json."
        )
    if not files:
        raise InvalidRequestError("The request has no images.")
    if len(files) > settings.max_images:
        raise InvalidRequestError(
            f"A request may have at most {settings.max_images} images, not {len(files)}."
        )
    return files


async def read_one_image(request: Request, settings: Settings, subject: str) -> bytes:
    """The only file in the body of `request`; raises what `read_images` raises, and InvalidRequestError for
    several files, of which the sentence begins with `subject`, as "Maps"."""
    files = await read_images(request, settings)
    if len(files) != 1:
        raise InvalidRequestError(f"{subject} are of one image at a time, not of {len(files)}.")
    return files[0]


@lru_cache(maxsize=MAX_CACHED_TYPES)
def media_type(content_type: bytes) -> str:
    """The media type of a Content-Type, in lower case."""
    return content_type.decode("latin-1").split(";", 1)[0].strip().lower()


def is_one_image(kind: str) -> bool:
    """Whether a body of media type `kind` is one image file."""
    return kind.startswith("image/") or kind in UNSPECIFIC_TYPES


async def _multipart(request: Request, max_images: int, max_body_bytes: int) -> list[bytes]:
    boundary = form_boundary(request)
    stream = without_preamble(request.stream(), boundary)
    parser = _Form(_form_headers(boundary), stream, max_files=max_images, max_fields=0)
    # The body's size is limited already; a file on disk would cost more than it saves.
    parser.spool_max_size = max_body_bytes
    try:
        form = await parser.parse()
    # Older versions of Starlette pass the parser's own errors on.
    except (MultiPartException, FormParserError) as error:
        raise InvalidRequestError(
            "The multipart body is malformed, has parts that are not files, or has more than "
            f"{max_images} of them."
        ) from error
    try:
        if not parser.ended:
            raise InvalidRequestError("The multipart body ends before its last boundary.")
        return [await _file(name, value) for name, value in form.multi_items()]
    finally:
        await form.close()


class _Form(MultiPartParser):
    """Records whether the last boundary arrived: without it the last part may be cut off."""

    ended = False

    def on_end(self) -> None:
        self.ended = True
        super().on_end()


def _form_headers(boundary: bytes) -> Headers:
    """A form's Content-Type with its boundary alone.

    A client could name a charset, and some of Python's raise errors of their own or take quadratic time.
    """
    return Headers({"content-type": f'multipart/form-data; boundary="{boundary.decode()}"'})


def form_boundary(request: Request) -> bytes:
    """The boundary in a form's Content-Type; raises InvalidRequestError if there is no valid one."""
    _, options = parse_options_header(request.headers["content-type"])
    boundary = options.get(b"boundary", b"")
    if not BOUNDARY.fullmatch(boundary):
        raise InvalidRequestError("The multipart body has no valid boundary.")
    return boundary


async def without_preamble(
    stream: AsyncIterator[bytes], boundary: bytes
) -> AsyncGenerator[bytes, None]:
    """A multipart body from its first boundary on: other text may be before it (RFC 2046, section 5.1.1).

    A body without one in its first MAX_PREAMBLE_BYTES stays as it is, and its parser refuses it.
    """
    head = b"\r\n"
    async for chunk in stream:
        head += chunk
        found = head.find(b"\r\n--" + boundary)
        if found >= 0 or len(head) > MAX_PREAMBLE_BYTES:
            head = head[max(found, 0) :]
            break
    yield head[2:]
    async for chunk in stream:
        yield chunk


async def _file(name: str, value: UploadFile | str) -> bytes:
    if name != FIELD or isinstance(value, str):
        raise InvalidRequestError(
            f"Every part of a multipart body must be a file called {FIELD!r}."
        )
    return await value.read()


def _json(body: bytes) -> list[bytes]:
    content = parse_json(body)
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list) or len(content) != 1:
        raise InvalidRequestError(
            'The JSON body must be {"images": [...]} with a list and nothing else.'
        )
    return [file_of_base64(number, image) for number, image in enumerate(images, 1)]
