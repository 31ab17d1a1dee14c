"""GET /docs: the API as a page, from its OpenAPI; without scripts, and without any other host."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse

from serving.api.routes.page import HEADERS

PATH = "/docs"
START = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="icon" href="page/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="page/style/tokens.css">
<link rel="stylesheet" href="page/style/docs.css">
</head>
<body>
<main>
<h1>{title} {version}</h1>
<p>{description}</p>
<p><a href="openapi.json">openapi.json</a> · <a href=".">the page</a></p>
"""
router = APIRouter(include_in_schema=False)


@router.get(PATH)
async def docs(request: Request) -> HTMLResponse:
    """Every operation with its parameters, bodies and answers."""
    return HTMLResponse(docs_page(request.app.openapi()), headers=HEADERS)


def docs_page(schema: dict[str, Any]) -> str:
    """The OpenAPI `schema` as HTML. Addresses in it are relative, so it works below any path."""
    info = {key: escape(schema["info"][key]) for key in ("title", "version", "description")}
    by_tag: dict[str, list[str]] = {}
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            tag = operation.get("tags", ["other"])[0]
            by_tag.setdefault(tag, []).append("".join(_operation(method, path, operation)))
    sections = [f"<h2>{escape(tag)}</h2>\n{''.join(articles)}" for tag, articles in by_tag.items()]
    return START.format(**info) + "".join(sections) + "</main>\n</body>\n</html>\n"


def _operation(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"<details>\n<summary><code>{method.upper()} {escape(path)}</code> "
    yield f"{escape(operation['summary'])}</summary>\n"
    yield f"<p>{escape(operation.get('description', ''))}</p>\n"
    parameters = [
        (entry["name"], entry["in"], _type(entry.get("schema", {})), _text(entry))
        for entry in operation.get("parameters", [])
    ]
    yield from _table(("parameter", "in", "type", "meaning"), parameters)
    body = operation.get("requestBody", {})
    kinds = body.get("content", {})
    yield from _table(
        ("body", "type"), [(kind, _type(entry.get("schema", {}))) for kind, entry in kinds.items()]
    )
    for kind, entry in kinds.items():
        if "example" in entry:
            example = escape(json.dumps(entry["example"]))
            yield f"<p>{escape(kind)}, for example:</p>\n<pre><code>{example}</code></pre>\n"
    answers = [(status, entry["description"]) for status, entry in operation["responses"].items()]
    yield from _table(("status", "meaning"), answers)
    yield "</details>\n"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    if rows:
        yield "<table>\n<thead><tr>"
        yield from (f'<th scope="col">{escape(cell)}</th>' for cell in head)
        yield "</tr></thead>\n<tbody>\n"
        for row in rows:
            yield f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>\n"
        yield "</tbody>\n</table>\n"


def _text(parameter: dict[str, Any]) -> str:
    required = " Required." if parameter.get("required") else ""
    return str(parameter.get("description", "")) + required


def _type(schema: dict[str, Any]) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        return " | ".join(_type(entry) for entry in schema["anyOf"] if entry != {"type": "null"})
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return str(schema.get("format") or schema.get("type", "any"))
