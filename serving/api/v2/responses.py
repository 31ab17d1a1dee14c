"""From predictions to the bytes of an inference response. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from exports.bundle.manifest import Manifest
from serving.api.v2.model import OUTPUTS, PROBABILITIES
from serving.api.v2.requests import HEADER, Inference, Wanted
from serving.api.v2.tensors import Tensor, to_binary, to_json
from serving.inference.engine import Prediction


def write_response(
    request: Inference, manifest: Manifest, predictions: Sequence[Prediction]
) -> tuple[bytes, dict[str, str]]:
    """The body, and the headers that say how to read it."""
    outputs: list[dict[str, Any]] = []
    tail: list[bytes] = []
    for wanted in request.outputs:
        tensor, datatype, shape = _tensor(wanted, manifest, predictions)
        output: dict[str, Any] = {"name": wanted.name, "datatype": datatype, "shape": shape}
        if wanted.binary:
            content = to_binary(tensor, datatype)
            output["parameters"] = {"binary_data_size": len(content)}
            tail.append(content)
        else:
            output["data"] = to_json(tensor)
        outputs.append(output)
    answer: dict[str, Any] = {"model_name": manifest.name, "model_version": manifest.version}
    if request.id is not None:
        answer["id"] = request.id
    if len(predictions) == 1:
        answer["parameters"] = {
            "exit": predictions[0].exit,
            "confidence": predictions[0].confidence,
        }
    head = orjson.dumps({**answer, "outputs": outputs}, option=orjson.OPT_SERIALIZE_NUMPY)
    if not tail:
        return head, {"Content-Type": "application/json"}
    headers = {"Content-Type": "application/octet-stream", HEADER: str(len(head))}
    return b"".join((head, *tail)), headers


def _tensor(
    wanted: Wanted, manifest: Manifest, predictions: Sequence[Prediction]
) -> tuple[Tensor, str, list[int]]:
    count, labels = len(predictions), manifest.labels
    if wanted.classes:
        classes = min(wanted.classes, len(labels))
        best = [text for found in predictions for text in _classification(found, labels, classes)]
        return best, "BYTES", [count, classes]
    tensor: Tensor
    if wanted.name == PROBABILITIES:
        tensor = np.stack([found.probabilities for found in predictions])
    elif wanted.name == "label":
        tensor = [labels[found.index].encode() for found in predictions]
    elif wanted.name == "exit":
        tensor = np.array([found.exit for found in predictions], dtype=np.int32)
    else:
        tensor = np.array([found.confidence for found in predictions], dtype=np.float32)
    shape = [count, len(labels)] if wanted.name == PROBABILITIES else [count]
    return tensor, OUTPUTS[wanted.name], shape


def _classification(found: Prediction, labels: Sequence[str], classes: int) -> list[bytes]:
    """The likeliest classes as `value:index:label`, the value with the six digits Triton gives."""
    best = np.argsort(-found.probabilities, kind="stable")[:classes].tolist()
    return [f"{found.probabilities[i]:f}:{i}:{labels[i]}".encode() for i in best]
