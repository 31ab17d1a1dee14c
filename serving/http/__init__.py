"""The HTTP server, below ASGI. See README.md in this folder."""

from serving.http.uvicorn_internals import check_uvicorn

check_uvicorn()
