"""Bodies packed with gzip or deflate are unpacked, within the limit of bodies."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import AsyncIterator

import httpx
import orjson
import pytest

from tests.serving.api.v2.helpers import INFER, request_of
from tests.serving.conftest import Client
from tests.serving.requests import CLASSIFY, PNG, as_json, as_multipart, as_raw, assert_error

# Of the fixture `settings`.
LIMIT = 20_000


def raw_deflate(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(content) + packer.flush()


ENCODINGS = [
    ("gzip", gzip.compress),
    ("X-GZip", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
]


def post(client: Client, content: bytes, encoding: str, **headers: str) -> httpx.Response:
    return client.post(
        CLASSIFY, content=content, headers={**PNG, **headers, "Content-Encoding": encoding}
    )


@pytest.mark.parametrize(("encoding", "pack"), ENCODINGS)
def test_a_packed_body_is_answered_as_the_plain_one(
    client: Client, pngs: list[bytes], encoding: str, pack: object
) -> None:
    assert callable(pack)
    plain = client.post(CLASSIFY, **as_raw(pngs[0])).json()["predictions"]
    assert post(client, pack(pngs[0]), encoding).json()["predictions"] == plain
    body = orjson.dumps(as_json(pngs[:1])["json"])
    kind = {"Content-Type": "application/json"}
    assert post(client, pack(body), encoding, **kind).json()["predictions"] == plain
    form = httpx.Request("POST", "http://x", **as_multipart(pngs[:1]))
    kind = {"Content-Type": form.headers["content-type"]}
    assert post(client, pack(form.read()), encoding, **kind).json()["predictions"] == plain
    packed = pack(orjson.dumps(request_of(pngs[:1])))
    answer = client.post(INFER, content=packed, headers={"Content-Encoding": encoding})
    assert answer.status_code == 200


def test_a_packed_body_in_parts_is_read(client: Client, pngs: list[bytes]) -> None:
    packed = gzip.compress(pngs[0])

    async def parts() -> AsyncIterator[bytes]:
        for at in range(0, len(packed), 7):
            yield packed[at : at + 7]

    headers = {**PNG, "Content-Encoding": "gzip"}
    assert client.post(CLASSIFY, content=parts(), headers=headers).status_code == 200


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_a_bomb_is_not_unpacked_beyond_the_limit(client: Client, pack: object) -> None:
    assert callable(pack)
    encoding = "gzip" if pack is gzip.compress else "deflate"
    assert_error(post(client, pack(bytes(1 << 27))[:LIMIT], encoding), 413, "too_large", "20000")
    assert_error(post(client, pack(bytes(LIMIT)), encoding), 400, "invalid_image")
    assert_error(post(client, pack(bytes(LIMIT + 1)), encoding), 413, "too_large")


def test_a_body_that_is_not_what_its_encoding_says_is_refused(
    client: Client, pngs: list[bytes]
) -> None:
    packed = gzip.compress(pngs[0])
    for content, says in (
        (pngs[0], "not valid gzip"),
        (packed[:-5], "ends before its gzip"),
        (packed + b"x", "after the end of its gzip"),
        (packed + packed, "after the end of its gzip"),
    ):
        assert_error(post(client, content, "gzip"), 400, "invalid_request", says)


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "compress"])
def test_another_encoding_names_those_accepted(
    client: Client, pngs: list[bytes], encoding: str
) -> None:
    answer = post(client, pngs[0], encoding)
    assert_error(answer, 415, "unsupported_type", "gzip, deflate or identity")
    assert answer.headers["Accept-Encoding"] == "gzip, deflate, identity"
    put = client.put("/v1/models/tiny/policy", json={}, headers={"Content-Encoding": encoding})
    assert_error(put, 415, "unsupported_type", "gzip, deflate or identity")


def test_identity_is_no_encoding(client: Client, pngs: list[bytes]) -> None:
    assert post(client, pngs[0], "Identity").status_code == 200
