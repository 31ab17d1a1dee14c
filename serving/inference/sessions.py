"""onnxruntime sessions for the graphs of a bundle, checked against its manifest."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from exports.bundle.errors import BundleError
from exports.bundle.manifest import GraphEntry, Manifest
from exports.bundle.reader import IMAGE, Bundle, cam_output, stage_input, stage_outputs
from offramp.onnx_runtime import load_onnxruntime, session_errors
from offramp.onnx_runtime import session_options as quiet_options
from serving.inference.providers import CPU, CUDA, active_provider, requested_providers
from serving.inference.runners import (
    TENSOR_TYPES,
    DeviceRunner,
    HostRunner,
    Runner,
    take_graph,
)
from serving.settings import Pool, Provider

# Two, because a graph with a fixed batch of one would pass with one.
CHECK_BATCH = 2


@dataclass(frozen=True)
class Sessions:
    """The stages of a bundle, ready to run, and the provider that all of them run on."""

    runner: Runner
    provider: str


def open_sessions(bundle: Bundle, threads: int, provider: Provider, pool: Pool = "own") -> Sessions:
    """Open a session per stage from the bundle's verified bytes, and run each once.

    `cuda` requires the GPU, `auto` uses it where it works. Raises BundleError if a graph is broken or
    does not match the manifest, SettingsError if the GPU is required but unavailable, MissingExtraError
    without onnxruntime.
    """
    ort = load_onnxruntime()
    providers, options = requested_providers(ort, provider), session_options(ort, threads, pool)
    stages = [
        _open(ort, bundle, stage, options, providers) for stage in range(1, len(bundle.stages) + 1)
    ]
    active = active_provider(stages, provider)
    graph_errors = session_errors()
    try:
        for count in (CHECK_BATCH, 1):
            _check_run(bundle, stages, count)
    except graph_errors as error:
        raise BundleError(f"{bundle.path}: its stages do not run one after the other.") from error
    if active == CUDA:
        kinds = {entry.feature_type for entry in bundle.manifest.exits}
        take = {
            kind: ort.InferenceSession(take_graph(kind), options, providers=providers)
            for kind in kinds
        }
        return Sessions(DeviceRunner(stages, take, "cuda", ort), CUDA)
    return Sessions(HostRunner(stages), CPU)


def open_stage(
    bundle: Bundle, stage: int, threads: int, provider: Provider, pool: Pool = "own"
) -> tuple[Any, str]:
    """Open a session of stage `stage` alone, from 1, and return it with its provider. Raises what
    `open_sessions` raises, but runs nothing."""
    ort = load_onnxruntime()
    options = session_options(ort, threads, pool)
    session = _open(ort, bundle, stage, options, requested_providers(ort, provider))
    return session, active_provider([session], provider)


def open_graph(path: Path, manifest: Manifest, entry: GraphEntry, content: bytes) -> Any:
    """Open a session of a whole-network graph from its verified bytes, and run it once.

    `entry` is the graph's entry in the manifest of the bundle in `path`. Raises BundleError if the graph
    is broken or does not match the manifest, MissingExtraError without onnxruntime.
    """
    ort = load_onnxruntime()
    file = path / entry.file
    size = (manifest.input.height, manifest.input.width)
    inputs: dict[str, Any] = {IMAGE: np.zeros((CHECK_BATCH, *size, 3), dtype=np.uint8)}
    if entry.kind == "routed":
        inputs["thresholds"] = np.ones(len(manifest.exits) - 1, dtype=np.float32)
    # ValueError: an input or output has another name.
    graph_errors: tuple[type[Exception], ...] = (*session_errors(), ValueError)
    exits = range(1, len(manifest.exits) + 1)
    names = {
        "exit": ["logits"],
        "routed": ["probabilities"],
        "maps": [cam_output(k) for k in exits],
    }[entry.kind]
    # Maps have a height and a width as well, of any size.
    dimensions = 4 if entry.kind == "maps" else 2
    try:
        session = ort.InferenceSession(content, session_options(ort, 1, "own"), providers=[CPU])
        shapes = [output.shape for output in session.run(names, inputs)]
    except graph_errors as error:
        raise BundleError(f"{file} is not an ONNX graph that onnxruntime can run.") from error
    expected = (CHECK_BATCH, len(manifest.labels))
    for name, shape in zip(names, shapes, strict=True):
        if len(shape) != dimensions or shape[:2] != expected:
            raise BundleError(f"{file} gives {name} of the shape {shape}, not {expected}.")
    return session


def session_options(ort: Any, threads: int, pool: Pool) -> Any:
    """Options of a session with `threads` threads from `pool`; see `Settings.pool`."""
    options = quiet_options()
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    if pool == "shared":
        _open_shared_pool(ort, threads)
        options.use_per_session_threads = False
        return options
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that still spin after a run occupy the cores that the next stage needs.
    if pool == "own":
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    else:
        options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _open(ort: Any, bundle: Bundle, stage: int, options: Any, providers: list[str]) -> Any:
    try:
        session = ort.InferenceSession(bundle.stages[stage - 1], options, providers=providers)
    except session_errors() as error:
        raise BundleError(
            f"{_file(bundle, stage)} is not an ONNX graph that onnxruntime can run."
        ) from error
    _check_signature(bundle, stage, session)
    return session


@lru_cache(maxsize=1)
def _open_shared_pool(ort: Any, threads: int) -> None:
    # Cached: onnxruntime accepts it once per process, before the first session.
    ort.set_global_thread_pool_sizes(threads, 1)


def _check_signature(bundle: Bundle, k: int, session: Any) -> None:
    exits = bundle.manifest.exits
    entry = exits[k - 1]
    takes_image = entry.input == "image"
    input_type = TENSOR_TYPES["uint8" if takes_image else exits[k - 2].feature_type]
    expected_inputs = [(stage_input(k, entry.input), input_type)]
    inputs = [(node.name, node.type) for node in session.get_inputs()]
    outputs = [(node.name, node.type) for node in session.get_outputs()]
    *features, logits = stage_outputs(k, entry.feature_shape is not None)
    expected = [(name, TENSOR_TYPES[entry.feature_type]) for name in features]
    expected.append((logits, TENSOR_TYPES["float32"]))
    if inputs != expected_inputs or outputs != expected:
        raise BundleError(
            f"{_file(bundle, k)} has the inputs {_list(inputs)} and outputs {_list(outputs)}, "
            f"not {_list(expected_inputs)} and {_list(expected)}."
        )


def _check_run(bundle: Bundle, stages: list[Any], count: int) -> None:
    manifest = bundle.manifest
    size = (manifest.input.height, manifest.input.width)
    images = np.zeros((count, *size, 3), dtype=np.uint8)
    features: list[Any] = []
    for k, (session, entry) in enumerate(zip(stages, manifest.exits, strict=True), 1):
        inputs = images if entry.input == "image" else features[0]
        *features, logits = session.run(None, {stage_input(k, entry.input): inputs})
        shapes = [tuple(array.shape) for array in (*features, logits)]
        feature_shapes = [] if entry.feature_shape is None else [entry.feature_shape]
        expected = [(count, *shape) for shape in (*feature_shapes, (len(manifest.labels),))]
        if shapes != expected:
            raise BundleError(
                f"{_file(bundle, k)} gives outputs of the shapes {shapes}, "
                f"but the manifest says {expected}."
            )


def _file(bundle: Bundle, k: int) -> str:
    return str(bundle.path / bundle.manifest.exits[k - 1].file)


def _list(signature: list[tuple[str, str]]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in signature) or "none"
