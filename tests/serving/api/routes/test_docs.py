"""The page at /docs."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from serving.api.routes.page import CONTENT_SECURITY_POLICY
from tests.serving.conftest import Client


class Links(HTMLParser):
    """The addresses of a page, and the tags that are open."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src")]


def test_it_has_every_operation_with_its_parameters(client: Client) -> None:
    text = client.get("/docs").text
    for path, operations in client.get("/openapi.json").json()["paths"].items():
        for method in operations:
            assert f"<code>{method.upper()} {path}</code>" in text
    assert "<td>reject_below</td><td>query</td><td>number</td>" in text
    assert re.search(r"<td>mode</td><td>query</td><td>early_exit \| ensemble \| exit</td>", text)


def test_everything_on_it_is_from_this_server_and_relative(client: Client) -> None:
    answer = client.get("/docs")
    assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    links = Links()
    links.feed(answer.text)
    assert "script" not in links.tags
    for address in links.addresses:
        assert not address.startswith(("/", "http:", "https:"))
        assert client.get(f"/{address.removeprefix('.')}").status_code == 200
