"""The deployment that answers HTTP: a whole server, or one whose stages run in other deployments."""

from __future__ import annotations

import contextlib
import logging
from functools import partial
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.api.app import create_app
from serving.api.asgi.completion import REQUEST_ID
from serving.ray.arguments import ModelConfig, read_model_config
from serving.ray.exporter import Exporter
from serving.ray.manager import SharedModelManager
from serving.ray.remote import RetryingDispatcher
from serving.scheduling.dispatcher import Dispatcher
from serving.service import Service
from serving.settings import Settings


class RayService(Service):
    """A replica's state. It serves nothing until it is configured."""

    manager: SharedModelManager

    def __init__(self, settings: Settings, policy_store: Any, stages: tuple[Any, ...]) -> None:
        """`policy_store` is the handle of PolicyStoreDeployment, `stages` are those of the stages, empty if
        they run in this process."""
        super().__init__(
            settings,
            dispatcher=RetryingDispatcher if stages else Dispatcher,
            manager=partial(SharedModelManager, policy_store=policy_store, stages=stages),
        )

    def load(self) -> None:
        """Nothing: `configure` comes before the first request."""

    async def configure(self, config: ModelConfig) -> None:
        """Serve the models of `config`; see SharedModelManager.configure."""
        await self.manager.configure(config)
        if self.phase == "starting":
            self.phase = "ready"


class Replica:
    """One replica of the application. Ray calls its public methods."""

    def __init__(self, settings: Settings, policy_store: Any, *stages: Any) -> None:
        logging.getLogger("offramp.models").setLevel(logging.INFO)
        logging.getLogger("python_multipart").setLevel(logging.ERROR)
        self._service = RayService(settings, policy_store, stages)
        self._exporting = contextlib.ExitStack()
        self._exporting.enter_context(Exporter(self._service.metrics.registry).running())

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """The app; Ray runs its lifespan."""
        return _without_request_id(create_app(self._service.settings, service=self._service))

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Serve the models of `user_config`, at the start and whenever it changes."""
        await self._service.configure(read_model_config(user_config))

    def check_health(self) -> None:
        """Raise an error, so that Ray replaces this replica, if it is not ready or does not receive policy
        changes."""
        if self._service.phase != "ready":
            raise RuntimeError(f"the replica is {self._service.phase}")
        if not self._service.manager.following:
            raise RuntimeError("the replica no longer follows the policy store")

    async def __del__(self) -> None:
        await self._service.manager.stop()
        self._exporting.close()


def _without_request_id(app: ASGIApp) -> ASGIApp:
    """`app` without the header of the request's id: Ray's proxy adds one of the same value."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_without_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    (name, value)
                    for name, value in message["headers"]
                    if name.lower() != REQUEST_ID
                ]
            await send(message)

        await app(scope, receive, send_without_id)

    return wrapped
