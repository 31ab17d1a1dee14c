"""The loaded models, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from exports.bundle.policy import Policy
from exports.bundle.reader import Bundle, load_bundle
from exports.bundle.resolve import EMBEDDED, resolve_bundle
from exports.tuning.preview import PolicyPreview
from serving.errors import NotFoundError, NotReadyError
from serving.inference.cam import CamGraph
from serving.inference.engine import Engine, ignore
from serving.inference.sessions import Sessions
from serving.models.gears import GearBox
from serving.settings import Pool, Provider
from serving.telemetry.metrics import Metrics

OpenSessions = Callable[[Bundle], Sessions]


@dataclass(frozen=True)
class LoadedModel:
    """A warm engine and the policy in force.

    `path` is the directory of its bundle, `stored` the policy that is written there. `cam` is None if the
    bundle has no graph for class-activation maps. `revision` counts the policies of this name from 1,
    across swaps. `certificate_verified` is what CertificateVerifier says of the policy in force.
    `unsaved_policy` was in force until this bundle replaced another, and was not written into that one.
    `raised_from` is the policy as a person or the bundle set it, if shadow checks raised thresholds since.
    `gears` is None without a latency target. `exit_seconds` [K] are the seconds of stages for an image that
    leaves at each exit, in batches of the best size; empty until they are measured.
    """

    engine: Engine
    policy: Policy
    path: Path
    stored: Policy
    calibration: PolicyPreview
    cam: CamGraph | None
    revision: int = 1
    certificate_verified: bool | None = None
    unsaved_policy: Policy | None = None
    raised_from: Policy | None = None
    gears: GearBox | None = None
    exit_seconds: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """The name that requests use."""
        return self.engine.manifest.name

    @property
    def policy_in_gear(self) -> Policy:
        """The policy for requests of normal priority without options of their own: that of the current gear,
        or the one in force."""
        return self.policy if self.gears is None else self.gears.policy


class ModelRegistry:
    """Models in the order they were loaded; the first one is the default.

    Used on the event loop only. Every change is one assignment: a request sees all of it or nothing.
    """

    def __init__(self) -> None:
        self._by_name: dict[str, LoadedModel] = {}
        self._revisions: dict[str, int] = {}

    def get(self, name: str | None) -> LoadedModel:
        """The model called `name`, or the default one. Raises NotFoundError, or NotReadyError if no model is
        loaded."""
        if not self._by_name:
            raise NotReadyError("No model is loaded.")
        if name is None:
            return next(iter(self._by_name.values()))
        try:
            return self._by_name[name]
        except KeyError:
            raise NotFoundError("There is no model of this name; /v1/models lists them.") from None

    def put(self, model: LoadedModel, revision: int | None = None) -> LoadedModel:
        """Add `model`, or replace the one of its name. Returns it with its revision: `revision`, or the next
        one of this name, which counts on even if the name was unloaded in between."""
        revision = revision or self._revisions.get(model.name, 0) + 1
        self._revisions[model.name] = revision
        added = replace(model, revision=revision)
        self._by_name = {**self._by_name, model.name: added}
        return added

    def remove(self, name: str) -> None:
        """Remove the model called `name`; if it was the default, the next one becomes it."""
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
    keep_logits: bool = False,
) -> LoadedModel:
    """Load the bundle `source`, as `resolve_bundle` takes it, and warm it up. `metrics` observes its stages.

    With `keep_logits` its predictions have their logits. `sessions` replaces `open_sessions`. Raises
    BundleError, SettingsError or MissingExtraError, in one sentence.
    """
    path = resolve_bundle(source)
    bundle = load_bundle(path)
    opened = None if sessions is None else sessions(bundle)
    observer = ignore if metrics is None else metrics.stage_observer(bundle.manifest.name)
    engine = Engine(
        bundle,
        threads=threads,
        provider=provider,
        pool=pool,
        on_stage=observer,
        sessions=opened,
        keep_logits=keep_logits,
    )
    engine.warm_up()
    calibration = PolicyPreview(path, bundle.manifest)
    entry = bundle.manifest.cam
    cam = None if entry is None else CamGraph(path, bundle.manifest, entry)
    return LoadedModel(engine, bundle.policy, path, bundle.policy, calibration, cam)


def default_bundles() -> tuple[Path, ...]:
    """The directories of the bundles that ship with the package; the first one answers by default."""
    return tuple(EMBEDDED.values())
