"""The file with the clients' keys and budgets."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from offramp.validation import first_problem
from serving.errors import SettingsError

ANONYMOUS = "anonymous"
NAME = r"^[A-Za-z0-9._-]{1,64}$"
MIN_KEY_CHARS = 16
MAX_CLIENTS = 1000
GIGA = 1e9
# Without a burst of its own, a budget has one of so many seconds.
BURST_S = 10.0


class Budget(BaseModel):
    """A budget in 10⁹ multiply-accumulates: a second, and at once; unlimited without them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gmacs_per_second: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    burst_gmacs: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _a_burst_has_a_rate(self) -> Self:
        if self.burst_gmacs is not None and self.gmacs_per_second is None:
            raise ValueError("burst_gmacs needs gmacs_per_second")
        return self

    @property
    def macs_per_second(self) -> float:
        """The rate; infinite without a limit."""
        return float("inf") if self.gmacs_per_second is None else GIGA * self.gmacs_per_second

    @property
    def burst_macs(self) -> float:
        """What may be spent at once; infinite without a limit."""
        if self.burst_gmacs is None:
            return BURST_S * self.macs_per_second
        return GIGA * self.burst_gmacs


class Client(Budget):
    """A client with a key."""

    key: Annotated[SecretStr, Field(min_length=MIN_KEY_CHARS)]


class ClientsFile(BaseModel):
    """Clients by name, and the budget that all requests share which have none of their keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    clients: Mapping[Annotated[str, Field(pattern=NAME)], Client] = Field(
        default_factory=dict, max_length=MAX_CLIENTS
    )
    anonymous: Budget

    @model_validator(mode="after")
    def _names_and_keys_differ(self) -> Self:
        if ANONYMOUS in self.clients:
            raise ValueError(f"a client cannot be called {ANONYMOUS}")
        keys = {client.key.get_secret_value() for client in self.clients.values()}
        if len(keys) < len(self.clients):
            raise ValueError("two clients have the same key")
        return self

    @property
    def budgets(self) -> dict[str, Budget]:
        """The budget of every name, ANONYMOUS included."""
        return {ANONYMOUS: self.anonymous, **self.clients}

    @property
    def names(self) -> dict[bytes, str]:
        """The client of every hashed key."""
        return {
            hashed(client.key.get_secret_value().encode()): name
            for name, client in self.clients.items()
        }


def hashed(key: bytes) -> bytes:
    """What a key is looked up by, so that the time of a look-up says nothing about the keys."""
    return hashlib.sha256(key).digest()


def read_clients(path: Path) -> ClientsFile:
    """The file in `path`; raises SettingsError, without a key in it."""
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"The file of budgets {path} cannot be read.") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"The file of budgets {path} is not TOML: {error}.") from error
    try:
        return ClientsFile.model_validate(content)
    except ValidationError as error:
        raise SettingsError(
            f"The file of budgets {path} is not valid: {first_problem(error)}."
        ) from error
