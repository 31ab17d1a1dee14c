"""Downloads over https only."""

from __future__ import annotations

import http.client
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import IO
from urllib.parse import urlsplit

from exports.bundle.errors import BundleError
from exports.bundle.safe_files import one_line
from offramp import __version__

# To connect, and between two chunks.
TIMEOUT_S = 20.0
# For the whole file: 2 GiB at about 1 MB/s. Ends the download from a server that sends too slowly.
TOTAL_S = 1800.0
CHUNK_BYTES = 1 << 20


def download(url: str, limit: int) -> Iterator[bytes]:
    """The body of `url` in chunks, at most `limit` bytes.

    Redirects must lead to https as well. The certificate must be trusted by the system, or by the file
    in SSL_CERT_FILE. Proxies are read from the environment. Raises BundleError, in one sentence without
    the query of `url`, which may hold a token.
    """
    shown = hide_query(url)
    deadline = time.monotonic() + TOTAL_S
    try:
        request = urllib.request.Request(url, headers={"User-Agent": f"offramp/{__version__}"})
        with _opener().open(request, timeout=TIMEOUT_S) as response:
            length = response.length
            if length is not None and length > limit:
                raise BundleError(f"{shown} has {length} bytes; at most {limit} are allowed.")
            received = 0
            # read1 returns after one packet, so that the deadline is checked.
            while chunk := response.read1(CHUNK_BYTES):
                received += len(chunk)
                if received > limit:
                    raise BundleError(f"{shown} has more than the {limit} bytes that are allowed.")
                if time.monotonic() > deadline:
                    raise BundleError(f"{shown} took more than {TOTAL_S:.0f} s.")
                yield chunk
            if length is not None and received < length:
                raise BundleError(f"{shown} ended after {received} of {length} bytes.")
    except urllib.error.HTTPError as error:
        error.close()
        raise BundleError(f"{shown} returned the status {error.code}.") from error
    except urllib.error.URLError as error:
        raise BundleError(f"{shown} is unavailable: {one_line(_reason(error.reason))}.") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise BundleError(f"{shown} is unavailable: {one_line(_reason(error))}.") from error


def hide_query(url: str) -> str:
    """`url` without query and fragment, for messages."""
    return one_line(urlsplit(url)._replace(query="", fragment="").geturl())


class _HttpsRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme != "https":
            raise BundleError(
                f"{hide_query(req.full_url)} redirects to an address that is not https."
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    # build_opener would also add http, ftp, file and data.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPSHandler(context=ssl.create_default_context()),
        _HttpsRedirects(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _reason(error: object) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, TimeoutError):
        return f"no data arrived for {TIMEOUT_S:.0f} s"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)
