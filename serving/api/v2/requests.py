"""From the bytes of an inference request to an `Inference`. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from exports.bundle.manifest import InputSpec
from serving.api.json_body import file_of_base64, parse_json
from serving.api.v2.model import INPUT, OUTPUTS, PROBABILITIES
from serving.api.v2.schemas import InferenceRequest, RequestInput, RequestOutput, RequestParameters
from serving.api.v2.tensors import pixels_of_binary, pixels_of_json, split_bytes
from serving.api.validation import MAX_NAME_CHARS, sentence
from serving.errors import InvalidRequestError, NotSupportedError

HEADER = "Inference-Header-Content-Length"
# Parameters of Triton's extensions that would change the answer, and so must not be ignored.
UNSUPPORTED = ("sequence_id", "shared_memory_region")
LENGTH_DIGITS = 18
DEFAULT_PARAMETERS = RequestParameters()

Images = list[bytes] | NDArray[np.uint8]
Body = TypeVar("Body", bound=BaseModel)


@dataclass(frozen=True)
class OutputSpec:
    """A requested output: in binary form or not, and with `classes` above 0 as classification."""

    name: str
    binary: bool
    classes: int = 0


@dataclass(frozen=True)
class Inference:
    """An inference request: `images` are files, or pixels uint8 [N, H, W, 3]. `names_codecs` is whether it
    names codecs of MLServer, so that outputs do, too."""

    images: Images
    outputs: tuple[OutputSpec, ...]
    id: str | None
    parameters: RequestParameters
    names_codecs: bool = False


def read_inference(
    body: bytes, header_length: str | None, spec: InputSpec, max_images: int
) -> Inference:
    """The request in `body`, whose header `Inference-Header-Content-Length` is `header_length`.

    Raises InvalidRequestError if anything does not fit the protocol, `spec` or `max_images`, and
    NotSupportedError if it asks for shared memory or a sequence.
    """
    if header_length is None:
        head, tail = body, None
    else:
        length = _length(header_length, len(body))
        if length == 0:
            everything = tuple(OutputSpec(name, binary=True) for name in OUTPUTS)
            return Inference([body], everything, None, DEFAULT_PARAMETERS)
        head, tail = body[:length], body[length:]
    content = read_object(head)
    for part in (content, *_objects(content.get("inputs")), *_objects(content.get("outputs"))):
        _check_supported(part.get("parameters"))
    request = validated(InferenceRequest, content)
    parameters = request.parameters or DEFAULT_PARAMETERS
    return Inference(
        _images(request.inputs, tail, spec, max_images),
        _outputs(request.outputs or (), parameters.binary_data_output is True),
        request.id,
        parameters,
        names_codecs=parameters.content_type is not None
        or any(tensor.parameters and tensor.parameters.content_type for tensor in request.inputs),
    )


def read_object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`; raises InvalidRequestError."""
    content = parse_json(body)
    if not isinstance(content, dict):
        raise InvalidRequestError("The body must be a JSON object.")
    return content


def validated(model: type[Body], content: dict[str, Any]) -> Body:
    """`content` as `model`; raises InvalidRequestError on the first problem."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise InvalidRequestError(sentence(error)) from error


def _length(text: str, body_bytes: int) -> int:
    # isdigit alone accepts digits of other scripts.
    valid = text.isascii() and text.isdigit() and len(text) <= LENGTH_DIGITS
    if not valid or int(text) > body_bytes:
        raise InvalidRequestError(
            f"{HEADER} must be a number of bytes, at most the body's {body_bytes}."
        )
    return int(text)


def _objects(value: object) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _check_supported(parameters: object) -> None:
    for name in UNSUPPORTED:
        if isinstance(parameters, dict) and parameters.get(name):
            raise NotSupportedError(f"This server does not support the parameter {name}.")


def _images(
    inputs: Sequence[RequestInput], tail: bytes | None, spec: InputSpec, max_images: int
) -> Images:
    if len(inputs) != 1 or inputs[0].name != INPUT:
        raise InvalidRequestError(f"A request must have one input, called {INPUT!r}.")
    tensor = inputs[0]
    # MLServer's codecs send files as [N, 1].
    shapes = {"UINT8": [[spec.height, spec.width, 3]], "BYTES": [[], [1]]}
    if tensor.shape[1:] not in shapes.get(tensor.datatype, []) or not tensor.shape:
        raise InvalidRequestError(
            f"The input must be UINT8 of the shape [N, {spec.height}, {spec.width}, 3] or BYTES of "
            f"the shape [N] or [N, 1], not {tensor.datatype[:MAX_NAME_CHARS]!r} of {tensor.shape}."
        )
    count = tensor.shape[0]
    if not 1 <= count <= max_images:
        raise InvalidRequestError(f"A request must have 1 to {max_images} images, not {count}.")
    binary = _binary(tensor, tail)
    if tensor.datatype == "UINT8":
        if binary is None:
            return pixels_of_json(tensor.data, tensor.shape)
        return pixels_of_binary(binary, tensor.shape)
    return _files(tensor.data, tensor.shape) if binary is None else split_bytes(binary, count)


def _binary(tensor: RequestInput, tail: bytes | None) -> bytes | None:
    """The tensor's binary form, None if its data are in the JSON."""
    size = tensor.parameters.binary_data_size if tensor.parameters else None
    if tensor.data is not None:
        if size is not None or tail:
            raise InvalidRequestError("The input has data in the JSON and after it.")
        return None
    if tail is None:
        missing = "data" if size is None else f"the header {HEADER}"
        raise InvalidRequestError(f"The input {tensor.name!r} lacks {missing}.")
    # There is one input: without a size, it is everything after the JSON.
    if size is not None and size != len(tail):
        raise InvalidRequestError(
            f"binary_data_size is {size}, but {len(tail)} bytes follow the JSON."
        )
    return tail


def _files(data: object, shape: list[int]) -> list[bytes]:
    if not isinstance(data, list) or len(data) != shape[0]:
        raise InvalidRequestError(f"The data does not have the shape {shape}.")
    if len(shape) > 1 and all(isinstance(row, list) and len(row) == 1 for row in data):
        data = [row[0] for row in data]
    return [file_of_base64(number, image) for number, image in enumerate(data, 1)]


def _outputs(outputs: Sequence[RequestOutput], binary: bool) -> tuple[OutputSpec, ...]:
    specs = []
    for output in outputs:
        if output.name not in OUTPUTS:
            raise InvalidRequestError(
                f"There is no output {output.name[:MAX_NAME_CHARS]!r}, only {', '.join(OUTPUTS)}."
            )
        parameters = output.parameters
        own = parameters.binary_data if parameters else None
        classes = (parameters.classification if parameters else None) or 0
        if classes and output.name != PROBABILITIES:
            raise InvalidRequestError(f"Only {PROBABILITIES} has the form of a classification.")
        specs.append(OutputSpec(output.name, binary if own is None else own, classes))
    if len({spec.name for spec in specs}) != len(specs):
        raise InvalidRequestError("An output is requested twice.")
    return tuple(specs) or tuple(OutputSpec(name, binary) for name in OUTPUTS)
