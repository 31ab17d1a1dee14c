"""Lines of records, without a server."""

from __future__ import annotations

from typing import Any

import orjson


def line(request_id: str, image: int = 0, time: str = "t", **more: Any) -> bytes:
    content = {"id": request_id, "image": image, "time": time, "network": "n", **more}
    return orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE)
