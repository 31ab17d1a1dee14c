"""The loaded models, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from exports.bundle.policy import Policy
from exports.bundle.reader import Bundle, load_bundle
from exports.bundle.resolve import embedded, resolve_bundle
from exports.tuning.preview import PolicyPreview
from serving.errors import NotFoundError, NotReadyError
from serving.inference.cam import CamGraph
from serving.inference.engine import Engine, ignore
from serving.inference.sessions import Sessions
from serving.settings import Pool, Provider
from serving.telemetry.metrics import Metrics

OpenSessions = Callable[[Bundle], Sessions]


@dataclass(frozen=True)
class LoadedModel:
    """A warm engine with the policy in force. `path` is where its bundle lies, `stored` the policy
    that is written there; `maps` is None if the bundle offers none; `revision` counts this name's policies,
    from 1, over swaps too."""

    engine: Engine
    policy: Policy
    path: Path
    stored: Policy
    calibration: PolicyPreview
    maps: CamGraph | None
    revision: int = 1

    @property
    def name(self) -> str:
        """The name that requests use."""
        return self.engine.manifest.name


class ModelRegistry:
    """Models in the order they were loaded; the first one is the default.

    Belongs to the event loop. Every change is one assignment: a request sees all of it or nothing.
    """

    def __init__(self) -> None:
        self._by_name: dict[str, LoadedModel] = {}
        self._revisions: dict[str, int] = {}

    def get(self, name: str | None) -> LoadedModel:
        """The model called `name`, or the default one; raises NotFoundError, or NotReadyError if none is."""
        if not self._by_name:
            raise NotReadyError("No model is loaded.")
        if name is None:
            return next(iter(self._by_name.values()))
        try:
            return self._by_name[name]
        except KeyError:
            raise NotFoundError("There is no model of this name; /v1/models lists them.") from None

    def put(self, model: LoadedModel, revision: int | None = None) -> LoadedModel:
        """Let `model`, or its new policy, take the place of what had its name; returns it with its
        revision: `revision`, or a new one even if the name was unloaded in between."""
        revision = revision or self._revisions.get(model.name, 0) + 1
        self._revisions[model.name] = revision
        placed = replace(model, revision=revision)
        self._by_name = {**self._by_name, model.name: placed}
        return placed

    def remove(self, name: str) -> None:
        """Forget the model called `name`; if it was the default, the next one is."""
        self._by_name = {key: model for key, model in self._by_name.items() if key != name}

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def __iter__(self) -> Iterator[LoadedModel]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)


def open_engine(
    source: str | Path,
    *,
    threads: int,
    provider: Provider,
    pool: Pool = "own",
    metrics: Metrics | None = None,
    sessions: OpenSessions | None = None,
) -> LoadedModel:
    """Load the bundle `source`, as `resolve_bundle` takes it, and warm it up, watched by `metrics`.

    `sessions` opens them in place of `open_sessions`, with what that needs of the other parameters.
    Raises BundleError, SettingsError or MissingExtraError, in one sentence.
    """
    path = resolve_bundle(source)
    bundle = load_bundle(path)
    opened = None if sessions is None else sessions(bundle)
    observer = ignore if metrics is None else metrics.stage_observer(bundle.manifest.name)
    engine = Engine(
        bundle, threads=threads, provider=provider, pool=pool, on_stage=observer, sessions=opened
    )
    engine.warm_up()
    calibration = PolicyPreview(path, bundle.manifest)
    entry = bundle.manifest.cam
    maps = None if entry is None else CamGraph(path, bundle.manifest, entry)
    return LoadedModel(engine, bundle.policy, path, bundle.policy, calibration, maps)


def default_bundle() -> Path:
    """Where the bundle that comes with the package lies."""
    return embedded()
