"""What SIGHUP reloads: the files of the key and of budgets, and the repository. Requests go on meanwhile."""

from __future__ import annotations

import asyncio
import logging

from offramp.errors import OfframpError
from serving.api.auth import AdminKey
from serving.errors import SettingsError
from serving.service import Service
from serving.watcher import Watcher

log = logging.getLogger("offramp.models")


async def reload(service: Service, key: AdminKey) -> None:
    """Read the files of the key and of budgets again, then load, swap and unload what has changed in the
    repository.

    What cannot be read is logged, and what was in force stays.
    """
    try:
        key.reload()
    except SettingsError as error:
        log.warning("the key is not reloaded: %s", error)
    try:
        if service.budgets is not None:
            service.budgets.reload()
    except SettingsError as error:
        log.warning("the budgets are not reloaded: %s", error)
    try:
        if service.settings.repository is not None:
            watcher = await asyncio.to_thread(Watcher, service)
            await watcher.update()
    except (OfframpError, OSError) as error:
        log.warning("the repository is not reloaded: %s", error)
    log.info("reloaded")
