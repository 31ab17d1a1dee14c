"""A model's configuration as Triton's extension has it, which perf_analyzer asks for.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_model_configuration.md
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fastapi import APIRouter

from serving.api.v2.common import MODEL, NO_MODEL, VERSION, Named, Versioned
from serving.api.v2.model import TensorMetadata, metadata_of
from serving.models.registry import LoadedModel
from serving.service import Service, ServiceOf

TYPES = {"UINT8": "TYPE_UINT8", "FP32": "TYPE_FP32", "INT32": "TYPE_INT32", "BYTES": "TYPE_STRING"}
router = APIRouter()


@dataclass(frozen=True)
class TensorConfig:
    """A tensor of a model, without the batch in `dims`."""

    name: str
    data_type: str
    dims: list[int]


@dataclass(frozen=True)
class LatestVersion:
    """That one version is served."""

    num_versions: int = 1


@dataclass(frozen=True)
class VersionPolicy:
    """Which versions are served."""

    latest: LatestVersion = field(default_factory=LatestVersion)


@dataclass(frozen=True)
class DynamicBatching:
    """That requests share batches, and that none waits for others."""

    preferred_batch_size: list[int] = field(default_factory=list)
    max_queue_delay_microseconds: int = 0


@dataclass(frozen=True)
class TransactionPolicy:
    """That a request has one response."""

    decoupled: bool = False


@dataclass(frozen=True)
class ModelConfig:
    """A model, as Triton describes it; `max_batch_size` is the most images of a request."""

    name: str
    platform: str
    backend: str
    version_policy: VersionPolicy
    max_batch_size: int
    input: list[TensorConfig]
    output: list[TensorConfig]
    dynamic_batching: DynamicBatching
    model_transaction_policy: TransactionPolicy


@router.get(MODEL + "/config", responses=NO_MODEL)
async def model_config(model: Named, service: ServiceOf) -> ModelConfig:
    """A model's configuration."""
    return _configuration(model, service)


@router.get(VERSION + "/config", responses=NO_MODEL)
async def model_version_config(model: Versioned, service: ServiceOf) -> ModelConfig:
    """A model's configuration, if it has this version."""
    return _configuration(model, service)


def _configuration(model: LoadedModel, service: Service) -> ModelConfig:
    metadata = metadata_of(model)
    return ModelConfig(
        name=model.name,
        platform="onnxruntime_onnx",
        backend="onnxruntime",
        version_policy=VersionPolicy(),
        max_batch_size=service.settings.max_images,
        input=[_tensor(tensor) for tensor in metadata.inputs],
        output=[_tensor(tensor) for tensor in metadata.outputs],
        dynamic_batching=DynamicBatching(),
        model_transaction_policy=TransactionPolicy(),
    )


def _tensor(tensor: TensorMetadata) -> TensorConfig:
    return TensorConfig(tensor.name, TYPES[tensor.datatype], tensor.shape[1:])
