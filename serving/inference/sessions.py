"""onnxruntime sessions for the stages of a bundle, checked against its manifest."""

from __future__ import annotations

import ctypes
import shutil
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from exports.bundle.errors import BundleError
from exports.bundle.manifest import GraphEntry, Manifest
from exports.bundle.reader import Bundle, cam_output, stage_input, stage_outputs
from offramp.onnx_runtime import load_onnxruntime
from offramp.onnx_runtime import session_options as quiet_options
from serving.errors import SettingsError
from serving.inference.runners import KINDS, DeviceRunner, HostRunner, Runner, take_graph
from serving.settings import Pool, Provider

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
# What every NVIDIA driver brings, and no package.
DRIVER = "libcuda.so.1"
# Two, because a graph with its batch fixed at one would pass with one.
CHECK_BATCH = 2


@dataclass(frozen=True)
class Sessions:
    """One onnxruntime session per stage, ready to run, and the provider they all run on."""

    runner: Runner
    provider: str


def open_sessions(bundle: Bundle, threads: int, provider: Provider, pool: Pool = "own") -> Sessions:
    """Open a session per stage from the bundle's verified bytes and run them once.

    `cuda` insists on the GPU, `auto` takes it where it works. Raises BundleError if a graph is
    broken or is not what the manifest says, SettingsError if the GPU cannot be had,
    MissingExtraError without onnxruntime.
    """
    ort = load_onnxruntime()
    wanted, options = _providers(ort, provider), session_options(ort, threads, pool)
    stages = [
        _open(ort, bundle, stage, options, wanted) for stage in range(1, len(bundle.stages) + 1)
    ]
    active = _active(stages, provider)
    broken = _broken_graph_errors()
    try:
        for count in (CHECK_BATCH, 1):
            _check_run(bundle, stages, count)
    except broken as error:
        raise BundleError(f"{bundle.path}: its stages do not run one after the other.") from error
    if active == CUDA:
        kinds = {entry.feature_type for entry in bundle.manifest.exits}
        take = {
            kind: ort.InferenceSession(take_graph(kind), options, providers=wanted)
            for kind in kinds
        }
        return Sessions(DeviceRunner(stages, take, "cuda", ort), CUDA)
    return Sessions(HostRunner(stages), CPU)


def open_graph(path: Path, manifest: Manifest, entry: GraphEntry, content: bytes) -> Any:
    """A session of the whole-network graph `entry` of the bundle in `path`, given as its verified bytes,
    which was run once.

    Raises BundleError if it is broken or is not what the manifest says, MissingExtraError without
    onnxruntime.
    """
    ort = load_onnxruntime()
    file = path / entry.file
    size = (manifest.input.height, manifest.input.width)
    inputs: dict[str, Any] = {stage_input(1): np.zeros((CHECK_BATCH, *size, 3), dtype=np.uint8)}
    if entry.kind == "routed":
        inputs["thresholds"] = np.ones(len(manifest.exits) - 1, dtype=np.float32)
    # ValueError: an input or output has another name.
    broken: tuple[type[Exception], ...] = (*_broken_graph_errors(), ValueError)
    exits = range(1, len(manifest.exits) + 1)
    answers = {
        "exit": ["logits"],
        "routed": ["probabilities"],
        "maps": [cam_output(k) for k in exits],
    }[entry.kind]
    # Maps have a height and a width besides, whatever they are.
    axes = 4 if entry.kind == "maps" else 2
    try:
        session = ort.InferenceSession(content, session_options(ort, 1, "own"), providers=[CPU])
        shapes = [found.shape for found in session.run(answers, inputs)]
    except broken as error:
        raise BundleError(f"{file} is not an ONNX graph that onnxruntime can run.") from error
    wanted = (CHECK_BATCH, len(manifest.labels))
    for answer, found in zip(answers, shapes, strict=True):
        if len(found) != axes or found[:2] != wanted:
            raise BundleError(f"{file} gives {answer} of the shape {found}, not {wanted}.")
    return session


def open_stage(
    bundle: Bundle, stage: int, threads: int, provider: Provider, pool: Pool = "own"
) -> tuple[Any, str]:
    """Open a session of stage `stage` alone, from 1, and tell its provider; raises what `open_sessions`
    raises, but runs nothing."""
    ort = load_onnxruntime()
    options = session_options(ort, threads, pool)
    session = _open(ort, bundle, stage, options, _providers(ort, provider))
    return session, _active([session], provider)


def gpu_present() -> bool:
    """Whether this machine seems to have an NVIDIA GPU."""
    # A container may have been given another one than the first.
    return any(Path("/dev").glob("nvidia[0-9]*")) or shutil.which("nvidia-smi") is not None


def _open(ort: Any, bundle: Bundle, stage: int, options: Any, providers: list[str]) -> Any:
    try:
        session = ort.InferenceSession(bundle.stages[stage - 1], options, providers=providers)
    except _broken_graph_errors() as error:
        raise BundleError(
            f"{_file(bundle, stage)} is not an ONNX graph that onnxruntime can run."
        ) from error
    _check_signature(bundle, stage, session)
    return session


def _active(sessions: list[Any], wanted: Provider) -> str:
    """What `sessions` run on: CUDA if all of them do."""
    active = {str(session.get_providers()[0]) for session in sessions}
    if wanted == "cuda" and active != {CUDA}:
        raise SettingsError(
            "The provider cuda was asked for, but onnxruntime fell back to the CPU; "
            "CUDA 13 and cuDNN 9 come with: pip install 'offramp[gpu]'."
        )
    return CUDA if active == {CUDA} else CPU


def _providers(ort: Any, provider: Provider) -> list[str]:
    # The GPU wheel lists CUDA on machines without a GPU too, hence the look at the machine.
    if provider == "cpu" or (provider == "auto" and not gpu_present()):
        return [CPU]
    if CUDA not in ort.get_available_providers():
        if provider == "auto":
            return [CPU]
        raise SettingsError(
            "The provider cuda was asked for, but this onnxruntime is for CPUs; "
            "install the other one with: pip uninstall onnxruntime && pip install 'offramp[gpu]'."
        )
    if provider == "cuda" and sys.platform == "linux" and not _loads(DRIVER):
        raise SettingsError(
            f"The provider cuda was asked for, but there is no NVIDIA driver here ({DRIVER}); "
            "a container gets the host's with: docker run --gpus all."
        )
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    return [CUDA, CPU]


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


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
    # A pool that still spins after its run holds the cores that the next stage needs.
    if pool == "own":
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    else:
        options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


@lru_cache(maxsize=1)
def _open_shared_pool(ort: Any, threads: int) -> None:
    # Once per process, before its first session; onnxruntime refuses what comes too late.
    ort.set_global_thread_pool_sizes(threads, 1)


def _broken_graph_errors() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    # They have no common base but Exception.
    return (
        state.EPFail,
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.NoModel,
        state.NoSuchFile,
        state.NotImplemented,
        state.RuntimeException,
    )


def _check_signature(bundle: Bundle, k: int, session: Any) -> None:
    exits = bundle.manifest.exits
    kind = "tensor(uint8)" if k == 1 else KINDS[exits[k - 2].feature_type]
    inputs = [(node.name, node.type) for node in session.get_inputs()]
    outputs = [(node.name, node.type) for node in session.get_outputs()]
    *features, logits = stage_outputs(k, len(exits))
    wanted = [(name, KINDS[exits[k - 1].feature_type]) for name in features]
    wanted.append((logits, KINDS["float32"]))
    if inputs != [(stage_input(k), kind)] or outputs != wanted:
        raise BundleError(
            f"{_file(bundle, k)} has the inputs {_list(inputs)} and outputs {_list(outputs)}, "
            f"not {_list([(stage_input(k), kind)])} and {_list(wanted)}."
        )


def _check_run(bundle: Bundle, stages: list[Any], count: int) -> None:
    manifest = bundle.manifest
    size = (manifest.input.height, manifest.input.width)
    inputs = np.zeros((count, *size, 3), dtype=np.uint8)
    for k, (session, entry) in enumerate(zip(stages, manifest.exits, strict=True), 1):
        *features, logits = session.run(None, {stage_input(k): inputs})
        found = [tuple(array.shape) for array in (*features, logits)]
        shapes = [] if entry.feature_shape is None else [entry.feature_shape]
        wanted = [(count, *shape) for shape in (*shapes, (len(manifest.labels),))]
        if found != wanted:
            raise BundleError(
                f"{_file(bundle, k)} gives outputs of the shapes {found}, "
                f"but the manifest says {wanted}."
            )
        inputs = features[0] if features else inputs


def _file(bundle: Bundle, k: int) -> str:
    return str(bundle.path / bundle.manifest.exits[k - 1].file)


def _list(signature: list[tuple[str, str]]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in signature) or "none"
