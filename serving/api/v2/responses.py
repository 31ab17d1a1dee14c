"""From predictions to the bytes of an inference response. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from exports.bundle.manifest import Manifest
from serving.api.v2.model import OUTPUTS, PROBABILITIES
from serving.api.v2.requests import HEADER, Inference, OutputSpec
from serving.api.v2.tensors import Tensor, to_binary, to_json
from serving.inference.engine import Prediction


def write_response(
    request: Inference,
    manifest: Manifest,
    predictions: Sequence[Prediction],
    limited_by: str | None = None,
) -> tuple[bytes, dict[str, str]]:
    """The body and its headers; `limited_by` is what kept images from going deeper."""
    outputs: list[dict[str, Any]] = []
    tail: list[bytes] = []
    for spec in request.outputs:
        tensor, datatype, shape = _tensor(spec, manifest, predictions)
        output: dict[str, Any] = {"name": spec.name, "datatype": datatype, "shape": shape}
        parameters: dict[str, Any] = {}
        if request.names_codecs:
            parameters["content_type"] = "str" if datatype == "BYTES" else "np"
        if spec.binary:
            content = to_binary(tensor, datatype)
            parameters["binary_data_size"] = len(content)
            tail.append(content)
        else:
            output["data"] = to_json(tensor)
        if parameters:
            output["parameters"] = parameters
        outputs.append(output)
    answer: dict[str, Any] = {"model_name": manifest.name, "model_version": manifest.version}
    if request.id is not None:
        answer["id"] = request.id
    # All images of a request have one policy.
    answer["parameters"] = {"measure": predictions[0].measure}
    if len(predictions) == 1:
        answer["parameters"] |= {
            "exit": predictions[0].exit,
            "confidence": predictions[0].confidence,
            "measured": predictions[0].measured,
            "reason": predictions[0].reason,
        }
    if limited_by is not None:
        answer["parameters"]["limited_by"] = limited_by
    head = orjson.dumps({**answer, "outputs": outputs}, option=orjson.OPT_SERIALIZE_NUMPY)
    if not tail:
        return head, {"Content-Type": "application/json"}
    headers = {"Content-Type": "application/octet-stream", HEADER: str(len(head))}
    return b"".join((head, *tail)), headers


def _tensor(
    spec: OutputSpec, manifest: Manifest, predictions: Sequence[Prediction]
) -> tuple[Tensor, str, list[int]]:
    count, labels = len(predictions), manifest.labels
    if spec.classes:
        classes = min(spec.classes, len(labels))
        best = [text for one in predictions for text in _classification(one, labels, classes)]
        return best, "BYTES", [count, classes]
    tensor: Tensor
    if spec.name == PROBABILITIES:
        tensor = np.stack([one.probabilities for one in predictions])
    elif spec.name == "label":
        tensor = [b"" if one.unsure else labels[one.index].encode() for one in predictions]
    elif spec.name == "exit":
        tensor = np.array([one.exit for one in predictions], dtype=np.int32)
    elif spec.name == "confidence":
        tensor = np.array([one.confidence for one in predictions], dtype=np.float32)
    elif spec.name == "measured":
        tensor = np.array([one.measured for one in predictions], dtype=np.float32)
    else:
        tensor = [one.reason.encode() for one in predictions]
    shape = [count, len(labels)] if spec.name == PROBABILITIES else [count]
    return tensor, OUTPUTS[spec.name], shape


def _classification(prediction: Prediction, labels: Sequence[str], classes: int) -> list[bytes]:
    """The most probable classes as `value:index:label`, the value with six digits as Triton has it."""
    best = np.argsort(-prediction.probabilities, kind="stable")[:classes].tolist()
    return [f"{prediction.probabilities[i]:f}:{i}:{labels[i]}".encode() for i in best]
