"""The JSON of the Open Inference Protocol that clients send, as pydantic models.

https://github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md, and
Triton's extensions for binary data, classification, schedule policy and model repository.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from exports.bundle.policy import Mode

INT64 = 2**63 - 1
# No valid request needs more; pydantic would check every entry of a longer list.
MAX_ENTRIES = 16


class _Open(BaseModel):
    """Ignores unknown keys, as the protocol's clients expect."""

    model_config = ConfigDict(strict=True, extra="ignore")


class _Closed(BaseModel):
    """Refuses unknown keys."""

    model_config = ConfigDict(strict=True, extra="forbid")


class RequestParameters(_Closed):
    """Options of one request; the model's policy applies where an option is missing."""

    mode: Mode | None = Field(
        default=None, description="How to answer, in place of the policy's mode."
    )
    threshold: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="Value of the policy's measure to leave at, for every exit.",
    )
    max_exit: int | None = Field(default=None, ge=1, le=INT64, description="Deepest exit, from 1.")
    reject_below: float | None = Field(
        default=None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Least confidence of a label; below it label is empty and reason is unsure.",
    )
    timeout: int | None = Field(
        default=None,
        ge=0,
        le=INT64,
        description="Microseconds; the answer is the best exit reached by then. 0: no limit.",
    )
    priority: int | None = Field(
        default=None, ge=0, le=INT64, description="0 and 1: normal; 2 and above: low."
    )
    content_type: str | None = Field(
        default=None,
        description="MLServer's name of a codec; base64 is read in any case, and outputs then name theirs.",
    )
    binary_data_output: bool | None = Field(
        default=None, description="Whether outputs come as binary data unless they say otherwise."
    )


class InputParameters(_Open):
    """Parameters of an input tensor."""

    binary_data_size: int | None = Field(
        default=None, ge=0, le=INT64, description="Bytes of this tensor after the JSON."
    )
    content_type: str | None = Field(
        default=None, description="MLServer's name of a codec, as in the request's parameters."
    )


class OutputParameters(_Open):
    """Parameters of a requested output."""

    binary_data: bool | None = Field(default=None, description="Whether it comes as binary data.")
    classification: int | None = Field(
        default=None,
        ge=0,
        le=INT64,
        description="For probabilities: this many of the most probable classes, as value:index:label.",
    )


class RequestInput(_Open):
    """An input tensor."""

    name: str
    shape: Annotated[list[Annotated[int, Field(ge=0, le=INT64)]], Field(max_length=MAX_ENTRIES)]
    datatype: str
    parameters: InputParameters | None = None
    data: Any = Field(
        default=None,
        description="UINT8: numbers, flat or nested; BYTES: base64 of image files. "
        "Missing if the tensor is binary data.",
    )


class RequestOutput(_Open):
    """A requested output."""

    name: str
    parameters: OutputParameters | None = None


class InferenceRequest(_Open):
    """The body of an inference request, or its head if binary data follows."""

    id: str | None = None
    parameters: RequestParameters | None = None
    inputs: Annotated[list[RequestInput], Field(max_length=MAX_ENTRIES)]
    outputs: Annotated[list[RequestOutput], Field(max_length=MAX_ENTRIES)] | None = None


class IndexRequest(_Open):
    """The body of a request for the repository's index."""

    ready: bool | None = Field(default=None, description="Whether to list loaded models only.")


class UnloadParameters(_Closed):
    """Parameters of unloading; no model here depends on another."""

    unload_dependents: bool | None = None


class LoadRequest(_Open):
    """The body of a request to load a model; this server supports no parameters of loading."""

    parameters: dict[str, Any] | None = None


class UnloadRequest(_Open):
    """The body of a request to unload a model."""

    parameters: UnloadParameters | None = None


def inline_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of `model` without references, for places in OpenAPI that cannot hold any."""
    schema = model.model_json_schema()
    parts = schema.pop("$defs", {})

    def resolve(node: Any) -> Any:
        if isinstance(node, list):
            return [resolve(entry) for entry in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return resolve(parts[node["$ref"].rsplit("/", 1)[1]])
        return {key: resolve(value) for key, value in node.items()}

    resolved: dict[str, Any] = resolve(schema)
    return resolved
