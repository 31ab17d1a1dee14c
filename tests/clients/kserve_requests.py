"""Runs with KServe's package: sends the image files argv[2:] to the server at argv[1], prints JSON."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from pathlib import Path

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

MODEL = "tiny"


def request_of(data: list[str] | list[bytes], binary: bool) -> InferRequest:
    image = InferInput("image", [len(data)], "BYTES")
    image.set_data_from_numpy(np.array(data, dtype=object), binary_data=binary)
    return InferRequest(model_name=MODEL, infer_inputs=[image])


async def main(url: str, files: list[bytes]) -> dict[str, object]:
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    probes = [
        await client.is_server_live(url),
        await client.is_server_ready(url),
        await client.is_model_ready(url, MODEL),
    ]
    labels = {}
    text = [base64.b64encode(file).decode() for file in files]
    for kind, request in (
        ("json", request_of(text, binary=False)),
        ("binary", request_of(files, binary=True)),
    ):
        answer = await client.infer(url, request, model_name=MODEL)
        (output,) = (output for output in answer.outputs if output.name == "label")
        labels[kind] = [
            label.decode() if isinstance(label, bytes) else label for label in output.as_numpy()
        ]
    await client.close()
    return {"probes": probes, "labels": labels}


if __name__ == "__main__":
    contents = [Path(name).read_bytes() for name in sys.argv[2:]]
    print(json.dumps(asyncio.run(main(sys.argv[1], contents))))
