"""The loaded models, by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from exports.bundle import load_bundle
from exports.errors import BundleError
from exports.locate import locate
from exports.policy import Policy
from serving.engine import Engine
from serving.errors import NotFoundError, NotReadyError
from serving.metrics import Metrics
from serving.settings import Pool, Provider, Settings


@dataclass(frozen=True)
class LoadedModel:
    """A warm engine with the policy in force; `revision` counts the policies, from 1."""

    engine: Engine
    policy: Policy
    revision: int = 1

    @property
    def name(self) -> str:
        """The name that requests use."""
        return self.engine.manifest.name


class Models:
    """Models in the order they were loaded; the first one is the default."""

    def __init__(self, models: Sequence[LoadedModel] = ()) -> None:
        self._by_name = {model.name: model for model in models}

    def get(self, name: str | None) -> LoadedModel:
        """The model called `name`, or the default one; raises NotFoundError, or NotReadyError if none is."""
        if not self._by_name:
            raise NotReadyError("No model is loaded yet.")
        if name is None:
            return next(iter(self._by_name.values()))
        try:
            return self._by_name[name]
        except KeyError:
            raise NotFoundError("There is no model of this name; /v1/models lists them.") from None

    def __iter__(self) -> Iterator[LoadedModel]:
        return iter(self._by_name.values())


def open_engine(
    source: str | Path,
    *,
    threads: int,
    provider: Provider,
    pool: Pool = "own",
    metrics: Metrics | None = None,
) -> LoadedModel:
    """Load the bundle `source`, as `locate` takes it, and warm it up, watched by `metrics`.

    Raises BundleError, SettingsError or MissingExtraError, in one sentence.
    """
    bundle = load_bundle(locate(source))
    if metrics is None:
        engine = Engine(bundle, threads=threads, provider=provider, pool=pool)
    else:
        observer = metrics.stage_observer(bundle.manifest.name)
        engine = Engine(bundle, threads=threads, provider=provider, pool=pool, on_stage=observer)
    engine.warm_up()
    return LoadedModel(engine, bundle.policy)


def load_models(settings: Settings, metrics: Metrics) -> Models:
    """Load every bundle of `settings`, or the one that comes with the package.

    Raises what `open_engine` raises, and BundleError if two bundles have one name.
    """
    loaded: dict[str, LoadedModel] = {}
    for source in settings.bundles or (default_bundle(),):
        model = open_engine(
            source,
            threads=settings.threads,
            provider=settings.provider,
            pool=settings.pool,
            metrics=metrics,
        )
        if model.name in loaded:
            raise BundleError(f"{source}: another bundle is called {model.name} already.")
        loaded[model.name] = model
        metrics.loaded(model.engine.manifest, model.engine.provider)
        metrics.policy(model.name, model.policy, model.revision)
    return Models(tuple(loaded.values()))


def default_bundle() -> Path:
    """Where the bundle that comes with the package lies."""
    from exports.bundles import embedded

    return embedded()
