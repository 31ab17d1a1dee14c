"""The layers between the HTTP server and FastAPI, in plain ASGI."""
