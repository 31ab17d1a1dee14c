"""Serving bundles over HTTP.

`offramp serve` runs Offramp's own HTTP server. `serving.app` is the application alone, for another ASGI
server: `uvicorn serving:app`. Its settings come from the environment (OFFRAMP_*).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI

    app: FastAPI
else:

    def __getattr__(name: str) -> object:
        """Make `app` when it is first asked for, so that importing the package stays light."""
        if name != "app":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from serving.api.app import create_app
        from serving.settings import read_settings

        globals()["app"] = create_app(read_settings())
        return globals()["app"]
