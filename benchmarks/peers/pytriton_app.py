"""Triton through PyTriton: the C++ server handles requests and batches, a Python function computes.

- An instance of the function per core.
- Dynamic batches of waiting requests, without a batching delay (Triton's default).
- Its queue refuses (503) requests that waited as long as ours may.
- The body is the file itself (Triton's raw binary request), the answer binary tensors: no JSON in Python.
- gRPC and metrics are off.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.model_config.common import QueuePolicy, TimeoutAction
from pytriton.triton import Triton, TritonConfig

from benchmarks.peers.model import FullNetwork, Setup


class Instance:
    """A function that Triton calls, with its own session."""

    def __init__(self, network: FullNetwork) -> None:
        self._network = network

    @batch
    def __call__(self, image: NDArray[np.object_]) -> Sequence[NDArray[np.generic]]:
        """Files [n, 1] -> index int64 [n, 1], exit int64 [n, 1], confidence float32 [n, 1]."""
        found = self._network.predict([self._network.decode(file) for file in image[:, 0]])
        return (
            np.array([[one["index"]] for one in found], np.int64),
            np.array([[one["exit"]] for one in found], np.int64),
            np.array([[one["confidence"]] for one in found], np.float32),
        )


if __name__ == "__main__":
    given = Setup.read()
    stale = QueuePolicy(
        timeout_action=TimeoutAction.REJECT,
        default_timeout_microseconds=int(1000 * given.wait_ms),
    )
    # HTTP only; the other ports would collide with those of another server.
    config = TritonConfig(
        http_address="127.0.0.1", http_port=given.port, allow_grpc=False, allow_metrics=False
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="network",
            infer_func=[Instance(FullNetwork(given.model)) for _ in range(given.workers)],
            inputs=[Tensor(name="image", dtype=bytes, shape=(1,))],
            outputs=[
                Tensor(name="index", dtype=np.int64, shape=(1,)),
                Tensor(name="exit", dtype=np.int64, shape=(1,)),
                Tensor(name="confidence", dtype=np.float32, shape=(1,)),
            ],
            config=ModelConfig(
                max_batch_size=given.batch, batcher=DynamicBatcher(default_queue_policy=stale)
            ),
        )
        triton.serve()
