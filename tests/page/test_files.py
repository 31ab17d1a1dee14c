"""The page as files: what is sent, under which headers, and what may not stand in it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from html.parser import HTMLParser

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from serving.api.routes.page import CONTENT_SECURITY_POLICY, PageFile, read_page
from tests.servers import Server

PAGE = read_page()
TEXTS = {path: file.content.decode() for path, file in PAGE.items() if not path.endswith(".webp")}
MODULES = {path: text for path, text in TEXTS.items() if path.endswith(".js")}
# Machado, Oliveira and Fernandes 2009, severity 1: linear RGB as other eyes see it.
EYES = {
    "usual": np.eye(3),
    "protanopia": np.array(
        [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]
    ),
    "deuteranopia": np.array(
        [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]
    ),
    "tritanopia": np.array(
        [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]]
    ),
}


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url) as client:
        yield client


def test_everything_is_less_than_200_kb() -> None:
    assert sum(len(file.content) for file in PAGE.values()) < 200_000


def test_files_are_small() -> None:
    assert {path: n for path, text in TEXTS.items() if (n := text.count("\n")) > 300} == {}


@pytest.mark.parametrize("address", ["/", "/page/main.js", "/page/samples/rocket.webp"])
def test_headers_are_strict(client: httpx.Client, address: str) -> None:
    headers = client.get(address).headers
    assert headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert "default-src 'none'" in CONTENT_SECURITY_POLICY
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(("path", "file"), PAGE.items(), ids=list(PAGE))
def test_every_file_comes_as_it_is_and_only_once(
    client: httpx.Client, path: str, file: PageFile
) -> None:
    answer = client.get(f"/page/{path}")
    assert answer.content == file.content
    assert answer.headers["content-type"] == file.media_type
    known = {"If-None-Match": f'"other", {answer.headers["etag"]}'}
    again = client.get(f"/page/{path}", headers=known)
    assert (again.status_code, again.content) == (304, b"")


def test_a_head_request_has_no_body(client: httpx.Client) -> None:
    answer = client.head("/")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) == len(PAGE["index.html"].content)


@pytest.mark.parametrize("path", ["no.js", "../app.py", "..%2fapp.py", "", "try", "%00"])
def test_nothing_else_is_served(client: httpx.Client, path: str) -> None:
    answer = client.get(f"/page/{path}")
    assert answer.status_code == 404
    assert answer.json()["code"] == "not_found"


class Markup(HTMLParser):
    """Collects (tag, attribute, value), and the text within scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str, str]] = []
        self.inline = ""
        self.within = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.within = tag
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        if self.within in ("script", "style"):
            self.inline += data.strip()


def markup() -> Markup:
    parsed = Markup()
    parsed.feed(TEXTS["index.html"])
    return parsed


def test_nothing_is_inline() -> None:
    parsed = markup()
    assert parsed.inline == ""
    assert [a for a in parsed.attributes if a[1] == "style" or a[1].startswith("on")] == []


def test_every_reference_leads_to_a_file_or_a_route(client: httpx.Client) -> None:
    references = {value for _, name, value in markup().attributes if name in ("href", "src")}
    for value in references:
        if value.startswith("page/"):
            assert value.removeprefix("page/") in PAGE
        else:
            assert value.startswith("#") or value in ("docs", "metrics", "v1/models")


def imports() -> Iterator[tuple[str, str]]:
    for path, text in MODULES.items():
        folder = path.split("/")[:-1]
        for target in re.findall(r'from "(.+?)"', text):
            parts = list(folder)
            for step in target.split("/"):
                if step == "..":
                    parts.pop()
                elif step != ".":
                    parts.append(step)
            yield path, "/".join(parts)


def test_every_import_leads_to_a_module_and_every_module_is_used() -> None:
    found = list(imports())
    assert {target for _, target in found} - set(MODULES) == set()
    assert set(MODULES) - {target for _, target in found} == {"main.js"}


def test_what_comes_from_a_bundle_cannot_become_markup() -> None:
    ways = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\b|new Function"
    assert [path for path, text in MODULES.items() if re.search(ways, text)] == []


def test_no_file_names_another_host() -> None:
    namespace = "http://www.w3.org/2000/svg"
    texts = {path: text.replace(namespace, "") for path, text in TEXTS.items()}
    assert [path for path, text in texts.items() if re.search(r"(https?:)?//\w+\.", text)] == []


@pytest.mark.parametrize("eye", EYES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_colours_of_four_exits_stay_apart(scheme: str, eye: str) -> None:
    palettes = re.findall(r"--exit-([1-4]): (#\w{6});", TEXTS["style/tokens.css"])
    chosen = palettes[:4] if scheme == "light" else palettes[4:]
    assert [number for number, _ in chosen] == ["1", "2", "3", "4"]
    seen = [lab(EYES[eye] @ linear(colour)) for _, colour in chosen]
    least = min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2))
    # 2.3 is a difference one can just see.
    assert least > 12


def linear(colour: str) -> NDArray[np.float64]:
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIELAB of linear RGB, white D65."""
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    ratio = to_xyz @ rgb.clip(0, 1) / np.array([0.9505, 1.0, 1.089])
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])
