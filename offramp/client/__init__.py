"""A client of `offramp serve`: `Client`, and `AsyncClient` for asyncio. It needs `offramp[client]`."""

from offramp.extras import needs_extra

with needs_extra("client"):
    import httpx as httpx

from offramp.client.answers import (
    Answer,
    Candidate,
    ExitReached,
    ImageError,
    Measure,
    Model,
    Prediction,
    Timing,
)
from offramp.client.async_client import AsyncClient
from offramp.client.errors import ClientError, ConnectionFailedError, ResponseError
from offramp.client.requests import Image, Options
from offramp.client.retries import RetryPolicy
from offramp.client.sync_client import Client

__all__ = [
    "Answer",
    "AsyncClient",
    "Candidate",
    "Client",
    "ClientError",
    "ConnectionFailedError",
    "ExitReached",
    "Image",
    "ImageError",
    "Measure",
    "Model",
    "Options",
    "Prediction",
    "ResponseError",
    "RetryPolicy",
    "Timing",
]
