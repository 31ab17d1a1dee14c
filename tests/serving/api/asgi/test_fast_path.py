"""A route on the fast path has nothing that only FastAPI would do for it, or the app does not start."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, Query
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from serving.api import app as app_module
from serving.api.app import create_app
from serving.api.asgi.fast_path import FastPathError, check_fast_routes
from serving.api.routes import classify
from serving.settings import Settings

PATH = "/hot"


class HotQuery(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = ""


class Answer(BaseModel):
    name: str


async def plain(request: Request, query: Annotated[HotQuery, Query()]) -> Response:
    return Response(query.name)


async def with_header(
    request: Request, query: Annotated[HotQuery, Query()], accept: Annotated[str, Header()]
) -> Response:
    return Response(query.name)


async def with_response(
    request: Request, query: Annotated[HotQuery, Query()], response: Response
) -> Response:
    return response


async def with_model(request: Request, query: Annotated[HotQuery, Query()]) -> Answer:
    return Answer(name=query.name)


def forbid() -> None:
    raise AssertionError


GUARD = [Depends(forbid)]


def app_with(
    endpoint: Any,
    app: dict[str, Any] | None = None,
    included: dict[str, Any] | None = None,
    router: dict[str, Any] | None = None,
    route: dict[str, Any] | None = None,
) -> FastAPI:
    """An app that has `endpoint` at PATH; the other arguments are options of each level."""
    found = FastAPI(**(app or {}))
    hot = APIRouter(**(router or {}))
    hot.add_api_route(PATH, endpoint, methods=["POST"], **(route or {}))
    found.include_router(hot, **(included or {}))
    return found


def test_a_plain_route_is_accepted() -> None:
    check_fast_routes(app_with(plain), {PATH: plain})
    check_fast_routes(app_with(plain, route={"response_model": Answer}), {PATH: plain})


@pytest.mark.parametrize("level", ["app", "included", "router", "route"])
def test_dependencies_of_any_level_are_refused(level: str) -> None:
    app = app_with(plain, **{level: {"dependencies": GUARD}})
    with pytest.raises(FastPathError, match=r"^POST /hot cannot .* dependencies\.$"):
        check_fast_routes(app, {PATH: plain})


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        (with_header, "parameters besides"),
        (with_response, "parameters besides"),
        (with_model, "response_model would be ignored"),
    ],
)
def test_what_the_fast_path_would_skip_is_refused(endpoint: Any, reason: str) -> None:
    with pytest.raises(FastPathError, match=reason):
        check_fast_routes(app_with(endpoint), {PATH: endpoint})


def test_another_endpoint_or_no_route_is_refused() -> None:
    with pytest.raises(FastPathError, match="another endpoint"):
        check_fast_routes(app_with(plain), {PATH: with_model})
    with pytest.raises(FastPathError, match="no such route"):
        check_fast_routes(FastAPI(), {PATH: plain})


def test_the_app_checks_its_routes_when_it_is_made(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_app(settings).state.service.close()
    monkeypatch.setitem(app_module.HOT, classify.PATH, with_model)
    with pytest.raises(FastPathError, match="POST /v1/classify"):
        create_app(settings)
