"""Files from the web: streamed, bounded in size and time, with errors in one sentence."""

from __future__ import annotations

import http.client
import re
import ssl
import string
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import IO
from urllib.parse import quote, urlsplit

from offramp import __version__
from offramp.errors import OfframpError

# For the connection and for each read.
TIMEOUT_S = 20.0
CHUNK_BYTES = 1 << 20
HTTPS_ONLY = frozenset({"https"})


class DownloadError(OfframpError):
    """A file cannot be downloaded, or is larger or slower than allowed."""


def download(
    url: str,
    *,
    max_bytes: int,
    max_s: float,
    schemes: frozenset[str] = HTTPS_ONLY,
    label: str | None = None,
) -> Iterator[bytes]:
    """Yield the body of `url` in chunks, at most `max_bytes` within `max_s` seconds.

    The address and every redirect must have one of `schemes`, http or https. Certificates are checked
    against the system's authorities, or those of SSL_CERT_FILE; proxies come from the environment.
    With `label`, a terminal on stderr shows a progress bar. Raises DownloadError, in one sentence
    without the query of `url`, which may hold a token.
    """
    shown = hide_query(url)
    deadline = time.monotonic() + max_s
    try:
        if urlsplit(url).scheme not in schemes:
            raise DownloadError(f"{shown} is not an {_either(schemes)} address.")
        request = urllib.request.Request(url, headers={"User-Agent": f"offramp/{__version__}"})
        with _opener(schemes).open(request, timeout=TIMEOUT_S) as response:
            total: int | None = response.length
            if total is not None and total > max_bytes:
                raise DownloadError(f"{shown} has {total} bytes; at most {max_bytes} are allowed.")
            received = 0
            with closing(_with_progress(_chunks(response), total, label)) as chunks:
                for chunk in chunks:
                    received += len(chunk)
                    if received > max_bytes:
                        raise DownloadError(f"{shown} has more than the allowed {max_bytes} bytes.")
                    if time.monotonic() > deadline:
                        raise DownloadError(f"{shown} took more than {max_s:.0f} s.")
                    yield chunk
            if total is not None and received < total:
                raise DownloadError(f"{shown} ended after {received} of {total} bytes.")
    except urllib.error.HTTPError as error:
        error.close()
        raise DownloadError(f"{shown} was answered with status {error.code}.") from error
    except urllib.error.URLError as error:
        raise DownloadError(f"{shown} is unavailable: {_reason(error.reason)}.") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DownloadError(f"{shown} is unavailable: {_reason(error)}.") from error


def hide_query(url: str) -> str:
    """`url` for messages: printable, without query and fragment."""
    return quote(re.split(r"[?#]", url, maxsplit=1)[0], safe=string.punctuation)


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    # read1 returns what has arrived, so the time limit holds for a slow server too.
    while chunk := response.read1(CHUNK_BYTES):
        yield chunk


def _with_progress(
    chunks: Iterator[bytes], total: int | None, label: str | None
) -> Generator[bytes]:
    if label is None or not sys.stderr.isatty():
        yield from chunks
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(escape(label), total=total)
        for chunk in chunks:
            progress.advance(task, len(chunk))
            yield chunk


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect if its scheme is allowed."""

    def __init__(self, schemes: frozenset[str]) -> None:
        self._schemes = schemes

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme not in self._schemes:
            shown = hide_query(req.full_url)
            raise DownloadError(
                f"{shown} redirects to an address that is not {_either(self._schemes)}."
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(schemes: frozenset[str]) -> urllib.request.OpenerDirector:
    # build_opener would add handlers for ftp, file and data.
    opener = urllib.request.OpenerDirector()
    opener.add_handler(urllib.request.ProxyHandler())
    if "http" in schemes:
        opener.add_handler(urllib.request.HTTPHandler())
    if "https" in schemes:
        opener.add_handler(urllib.request.HTTPSHandler(context=ssl.create_default_context()))
    opener.add_handler(_Redirects(schemes))
    opener.add_handler(urllib.request.HTTPDefaultErrorHandler())
    opener.add_handler(urllib.request.HTTPErrorProcessor())
    return opener


def _either(schemes: frozenset[str]) -> str:
    return " or ".join(sorted(schemes))


def _reason(error: object) -> str:
    """Why a download failed. Texts of HTTP errors are left out: they can hold the query."""
    if isinstance(error, str):  # urllib's own, as in "no host given"
        return error
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, TimeoutError):
        return f"no data for {TIMEOUT_S:.0f} s"
    if isinstance(error, http.client.RemoteDisconnected | http.client.IncompleteRead):
        return "the server closed the connection"
    if isinstance(error, OSError):
        return "".join(filter(str.isprintable, error.strerror or str(error)))
    if isinstance(error, http.client.InvalidURL | ValueError):
        return "the address is not valid"
    return "the response is not valid HTTP"
