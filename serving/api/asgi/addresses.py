"""What an address means: below a proxy's prefix, and by the method HEAD."""

from __future__ import annotations

from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class StripRootPath:
    """Removes the prefix `root_path` from paths, for proxies that pass it on. The prefix alone is redirected
    to the page, whose links are relative to it."""

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._page = root_path + "/"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and scope["path"] + "/" == self._page:
            app = RedirectResponse(self._page)
        elif scope["type"] == "http" and scope["path"].startswith(self._page):
            scope["path"] = scope["path"][len(self._page) - 1 :]
        await app(scope, receive, send)


class HeadAsGet:
    """Answers HEAD as GET, without the body (RFC 9110, section 9.3.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        # Layers outside see the original method, and both share the state.
        scope.setdefault("state", {})
        await self._app({**scope, "method": "GET"}, receive, send_head)
