"""Every wrong request is refused with one sentence and a code."""

from __future__ import annotations

from collections.abc import AsyncIterator

import numpy as np
import pytest
from PIL import Image

from exports.bundle.resolve import CIFAR100
from serving.api.asgi.middleware import MAX_SMALL_BODY_BYTES
from serving.settings import Settings
from tests.serving.conftest import Client, encode, running
from tests.serving.requests import (
    CLASSIFY,
    as_json,
    as_multipart,
    as_raw,
    assert_error,
)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("colour=red", "'colour'"),
        ("top_k=0", "top_k"),
        ("top_k=8", "between 1 and 7"),
        ("top_k=many", "top_k"),
        ("mode=guess", "mode"),
        ("threshold=-1", "threshold"),
        ("threshold=nan", "threshold"),
        ("max_exit=0", "max_exit"),
        ("max_exit=4", "between 1 and 3"),
    ],
)
def test_a_wrong_parameter_is_named(
    client: Client, pngs: list[bytes], query: str, says: str
) -> None:
    answer = client.post(f"{CLASSIFY}?{query}", **as_raw(pngs[0]))
    assert_error(answer, 400, "invalid_request", says)


JSON = {"Content-Type": "application/json"}


FORM = {"Content-Type": "multipart/form-data"}


@pytest.mark.parametrize(
    ("content", "headers", "says"),
    [
        (b"{", JSON, "JSON"),
        (b"\xff\xfe", JSON, "JSON"),
        (b"[" * 10_000, JSON, "JSON"),
        (b"[]", JSON, "images"),
        (b"{}", JSON, "images"),
        (b'{"images": "aGk="}', JSON, "images"),
        (b'{"images": [], "model": "tiny"}', JSON, "images"),
        (b'{"images": []}', JSON, "no images"),
        (b'{"images": [1]}', JSON, "Image 1"),
        (b'{"images": ["aGk=", "?"]}', JSON, "Image 2"),
        (b'{"images": ["\xc3\xa9"]}', JSON, "Image 1"),
        (b"", FORM, "multipart"),
        (b"nonsense", {"Content-Type": "multipart/form-data; boundary=x"}, "multipart"),
        (b"--x--\r\n", {"Content-Type": "multipart/form-data; boundary=x"}, "no images"),
    ],
)
def test_a_malformed_body_is_refused(
    client: Client, content: bytes, headers: dict[str, str], says: str
) -> None:
    answer = client.post(CLASSIFY, content=content, headers=headers)
    assert_error(answer, 400, "invalid_request", says)


def test_a_query_of_kilobytes_is_not_read(client: Client, pngs: list[bytes]) -> None:
    answer = client.post(f"{CLASSIFY}?model={'x' * 5000}", **as_raw(pngs[0]))
    assert_error(answer, 400, "invalid_request", "4096 bytes")


def test_a_form_that_was_cut_off_is_not_answered_in_part(client: Client, pngs: list[bytes]) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n%b\r\n'
    whole = part % pngs[0] + part % pngs[1] + b"--x--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert len(client.post(CLASSIFY, content=whole, headers=headers).json()["predictions"]) == 2
    for end in (-7, -20, -len(pngs[1]) - 9):
        answer = client.post(CLASSIFY, content=whole[:end], headers=headers)
        assert_error(answer, 400, "invalid_request", "before its last boundary")


async def bytewise(content: bytes) -> AsyncIterator[bytes]:
    for byte in content:
        yield bytes([byte])


def test_a_form_may_have_text_before_its_first_boundary(client: Client, pngs: list[bytes]) -> None:
    disposition = b'Content-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
    form = b"--x\r\n" + disposition + pngs[0] + b"\r\n--x--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    whole = b"A form --x\r\nfollows.\r\n" + form
    for body in (whole, bytewise(whole), b"\r\n" + form):
        answer = client.post(CLASSIFY, content=body, headers=headers)
        assert answer.status_code == 200, answer.text
    for wrong in (b"y" * 9000 + b"\r\n" + form, whole[:40]):
        answer = client.post(CLASSIFY, content=bytewise(wrong), headers=headers)
        assert_error(answer, 400, "invalid_request", "multipart")


def test_multipart_parts_must_be_called_files(client: Client, pngs: list[bytes]) -> None:
    answer = client.post(CLASSIFY, **as_multipart(pngs[:1], field="photo"))
    assert_error(answer, 400, "invalid_request", "'files'")


def test_too_many_images_are_refused(client: Client, pngs: list[bytes]) -> None:
    for body in (as_json(pngs[:9]), as_multipart(pngs[:9])):
        assert_error(client.post(CLASSIFY, **body), 400, "invalid_request", "8")


def test_a_lone_bad_image_is_refused(client: Client) -> None:
    assert_error(client.post(CLASSIFY, **as_raw(b"text")), 400, "invalid_image", "JPEG")
    assert_error(client.post(CLASSIFY, **as_raw(b"")), 400, "invalid_image", "empty")


def test_an_unknown_model_is_not_found(client: Client, pngs: list[bytes]) -> None:
    assert_error(client.post(f"{CLASSIFY}?model=x", **as_raw(pngs[0])), 404, "not_found")
    assert_error(client.get("/v1/models/x"), 404, "not_found")
    assert_error(client.get("/v1/models/x/policy"), 404, "not_found")


def test_an_unknown_address_or_method_has_the_same_form(client: Client) -> None:
    assert_error(client.get("/nowhere"), 404, "not_found")
    wrong = client.get(CLASSIFY)
    assert_error(wrong, 405, "method_not_allowed", "GET")
    assert wrong.headers["Allow"] == "POST"


@pytest.mark.parametrize(
    "kind",
    [
        "image/jpg",
        "image/gif",
        "IMAGE/PNG; charset=binary",
        "application/octet-stream",
        "application/x-www-form-urlencoded",
    ],
)
def test_the_content_decides_and_not_the_media_type(
    client: Client, pngs: list[bytes], kind: str
) -> None:
    expected = client.post(CLASSIFY, **as_raw(pngs[0])).json()["predictions"]
    answer = client.post(CLASSIFY, content=pngs[0], headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["predictions"]) == (200, expected)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"name=value&other=1", "The image is in an unknown format"),
        (b"%PDF-1.7\n", "This is a PDF file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "The PNG file is damaged or incomplete."),
    ],
)
def test_a_sentence_names_the_format_that_was_found(
    client: Client, content: bytes, sentence: str
) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = client.post(CLASSIFY, content=content, headers=headers)
    assert_error(answer, 400, "invalid_image", sentence)


@pytest.mark.parametrize("kind", ["text/plain", "video/mp4", "application/pdf"])
def test_another_media_type_is_refused(client: Client, pngs: list[bytes], kind: str) -> None:
    answer = client.post(CLASSIFY, content=pngs[0], headers={"Content-Type": kind})
    assert_error(answer, 415, "unsupported_type", "image/jpeg")


def test_a_body_without_a_type_is_refused(client: Client, pngs: list[bytes]) -> None:
    assert_error(client.post(CLASSIFY, content=pngs[0]), 415, "unsupported_type")


def test_a_large_body_is_refused_in_every_form(client: Client) -> None:
    large = b"\0" * 20_001
    assert_error(client.post(CLASSIFY, **as_raw(large)), 413, "too_large", "20000")
    assert_error(client.post(CLASSIFY, **as_json([large])), 413, "too_large")
    assert_error(client.post(CLASSIFY, **as_multipart([large])), 413, "too_large")


def test_every_route_for_images_takes_a_photograph() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    photograph = encode(Image.fromarray(noise))
    assert len(photograph) > MAX_SMALL_BODY_BYTES
    with running(Settings(bundles=(str(CIFAR100),), workers=1)) as client:
        paths = client.get("/openapi.json").json()["paths"]
        bodies = {path: item.get("post", {}).get("requestBody", {}) for path, item in paths.items()}
        found = [path for path, body in bodies.items() if "image/png" in body.get("content", {})]
        assert "/v1/preprocess" in found
        for path in found:
            assert client.post(path, **as_raw(photograph)).status_code == 200, path


@pytest.mark.parametrize("kind", ["image/png", "multipart/form-data; boundary=x"])
def test_a_large_body_of_undeclared_length_is_not_read_to_its_end(
    client: Client, kind: str
) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
        for _ in range(1000):
            sent += 1
            yield b"\0" * 1000

    answer = client.post(CLASSIFY, content=endless(), headers={"Content-Type": kind})
    assert_error(answer, 413, "too_large")
    assert sent <= 21
