"""Runs with MLServer's package: sends the image files argv[2:] to the server at argv[1], prints JSON."""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path

from mlserver.codecs import Base64Codec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse


def main(url: str, files: list[bytes]) -> dict[str, object]:
    image = Base64Codec.encode_input("image", files, use_bytes=False)
    body = InferenceRequest(inputs=[image]).model_dump_json(exclude_none=True)
    request = urllib.request.Request(
        f"{url}/v2/models/tiny/infer", body.encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        response = InferenceResponse.model_validate_json(answer.read())
    (label,) = (output for output in response.outputs if output.name == "label")
    assert label.parameters is not None
    return {
        "shape": image.shape,
        "content_type": label.parameters.content_type,
        "labels": StringCodec.decode_output(label),
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], [Path(name).read_bytes() for name in sys.argv[2:]])))
