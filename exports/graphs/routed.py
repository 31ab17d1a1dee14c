"""Network and policy in one ONNX graph, in which every sample of a batch leaves at its own exit.

After each exit Compress separates the samples that leave from those that stay, so that the next stage
runs on a smaller batch, which may be empty. At the end ScatterND writes every answer to the row of its
sample. There is no Loop and no If, so any ONNX runtime can run the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from exports.bundle.errors import ExportError
from exports.bundle.policy import Policy, Scaling, combination
from exports.bundle.reader import IMAGE, features_of
from exports.bundle.routed_rule import METADATA_KEY, rule_json
from exports.graphs.onnx_tools import (
    assemble,
    connection,
    image_info,
    load_stages,
    opset,
    prefixed,
    serialised,
    takes_image,
)

OPSET = 13  # the first whose Squeeze, Unsqueeze and ReduceSum take their axes as an input
# Per sample, gathered from the exits they left at; `confidence` follows from the probabilities.
GATHERED = {"probabilities": np.float32, "exit": np.int64, "measured": np.float32}


def routed_graph(stages: Sequence[bytes], policy: Policy, scaling: Scaling) -> bytes:
    """(image uint8 [N, H, W, 3], thresholds float32 [K-1]) -> probabilities float32 [N, C], calibrated
    as the policy does it, exit int64 [N] from 1, confidence float32 [N], the probability of the likeliest
    class, measured float32 [N], the policy's measure at that exit. If `policy` has `reject_below`, also
    unsure bool [N]: the confidence is lower.

    Measure, combination, temperatures, weights, the deepest exit and `reject_below` are those of `policy`
    and are fixed in the graph, whose metadata name them; the thresholds are an input. A threshold above 1
    is never reached. Raises ExportError if the stages cannot be one graph.

    This repeats the rule of `exports.bundle.policy.Decision` as ONNX nodes.
    `test_every_kind_of_policy_answers_as_the_engine` and
    `test_any_thresholds_and_any_batch_even_an_empty_one` in tests/exports/graphs/test_routed.py hold
    the two equal.
    """
    models = load_stages(stages)
    if opset(models[0]) < OPSET:
        raise ExportError(f"a routed graph needs stages of ONNX opset {OPSET} or newer.")
    depth = policy.max_exit
    classes = models[0].graph.output[-1].type.tensor_type.shape.dim[1].dim_value
    router = _Router(policy, scaling, classes)
    router.begin()
    router.nodes.append(connection(models[0], 1))
    for k, model in enumerate(models[:depth], 1):
        router.nodes += model.graph.node
        router.add_measure(k)
        if k < depth:
            router.split(k, image_next=takes_image(models[k], k + 1))
    router.gather(depth)
    router.add_confidence()
    outputs = [
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", classes]),
        helper.make_tensor_value_info("exit", TensorProto.INT64, ["batch"]),
        helper.make_tensor_value_info("confidence", TensorProto.FLOAT, ["batch"]),
        helper.make_tensor_value_info("measured", TensorProto.FLOAT, ["batch"]),
    ]
    if policy.reject_below is not None:
        router.add_unsure(policy.reject_below)
        outputs.append(helper.make_tensor_value_info("unsure", TensorProto.BOOL, ["batch"]))
    thresholds = helper.make_tensor_value_info("thresholds", TensorProto.FLOAT, [policy.exits - 1])
    routed = assemble(
        "routed",
        models[:depth],
        router.nodes,
        [image_info(models), thresholds],
        outputs,
        router.constants,
    )
    routed.metadata_props.add(key=METADATA_KEY, value=rule_json(policy))
    return serialised(routed)


class _Router:
    """Collects the nodes between the stages, in order.

    Tensors of exit k are named `exitK.…`. `exitK.rows` are the samples that reach exit k, as row
    numbers of the batch; the suffix `.left` marks the part of a tensor that leaves there.
    """

    def __init__(self, policy: Policy, scaling: Scaling, classes: int) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.policy, self.scaling, self.classes = policy, scaling, classes
        self.combine = combination(policy)

    def begin(self) -> None:
        """Number the rows of the batch."""
        self.op("Shape", [IMAGE], "image.shape")
        self.op("Gather", ["image.shape", self.int64("first", 0)], "rows.count")
        self.op("Range", [self.int64("zero", 0), "rows.count", self.int64("one", 1)], "exit1.rows")

    def add_measure(self, k: int) -> None:
        """Probabilities and measure at exit k, in the same order of operations as `Decision`."""
        at = f"exit{k}"
        logits, temperature = prefixed(k, "logits"), self.scaling.temperatures[k - 1]
        if self.combine == "running":
            logits, temperature = self.running_mean(k), self.scaling.running_temperatures[k - 1]
        scaled = self.op(
            "Div", [logits, self.float32(f"{at}.temperature", temperature)], f"{at}.scaled"
        )
        self.op("Softmax", [scaled], f"{at}.probabilities", axis=-1)
        self.measure(at)

    def running_mean(self, k: int) -> str:
        """The running ensemble at exit k. The weighted sum of logits goes on with the samples that stay."""
        at, weights = f"exit{k}", self.scaling.weights
        weight = self.float32(f"{at}.weight", weights[k - 1])
        total = self.op(
            "Mul", [prefixed(k, "logits"), weight], f"{at}.weighted" if k > 1 else f"{at}.sum"
        )
        if k > 1:
            total = self.op("Add", [f"exit{k}.before", total], f"{at}.sum")
        share = self.float32(f"{at}.weights", sum(weights[:k]))
        return self.op("Div", [total, share], f"{at}.mean")

    def measure(self, at: str) -> None:
        """The measure [n] from probabilities [n, C], as `measure_confidence` computes it."""
        p, raw = f"{at}.probabilities", f"{at}.raw"
        last = self.int64("last", [-1])
        if self.policy.measure == "entropy":
            floor = self.float32("tiny", float(np.finfo(np.float32).tiny))
            self.op("Max", [p, floor], f"{at}.positive")
            self.op("Log", [f"{at}.positive"], f"{at}.log")
            self.op("Mul", [p, f"{at}.log"], f"{at}.terms")
            self.op("ReduceSum", [f"{at}.terms", last], f"{at}.negentropy", keepdims=0)
            most = self.float32("log_classes", float(np.log(self.classes)))
            self.op("Div", [f"{at}.negentropy", most], f"{at}.relative")
            self.op("Add", [f"{at}.relative", self.float32("whole", 1.0)], raw)
        elif self.policy.measure == "margin":
            top = self.top(p, 2, at)
            self.op("Gather", [top, self.int64("first", 0)], f"{at}.best", axis=1)
            self.op("Gather", [top, self.int64("second", 1)], f"{at}.next", axis=1)
            self.op("Sub", [f"{at}.best", f"{at}.next"], raw)
        else:
            raw = self.op("Gather", [self.top(p, 1, at), self.int64("first", 0)], raw, axis=1)
        bounds = [self.float32("least", 0.0), self.float32("most", 1.0)]
        self.op("Clip", [raw, *bounds], f"{at}.measured")

    def top(self, values: str, count: int, at: str) -> str:
        """The `count` largest of `values` [n, C], in descending order."""
        top, classes = f"{at}.top", f"{at}.classes"
        inputs = [values, self.int64(f"top{count}", [count])]
        self.nodes.append(helper.make_node("TopK", inputs, [top, classes], name=top, axis=-1))
        return top

    def add_confidence(self) -> None:
        """The probability of the likeliest class, from the answers' probabilities."""
        top = self.top("probabilities", 1, "answers")
        self.op("Gather", [top, self.int64("first", 0)], "confidence", axis=1)

    def add_unsure(self, reject_below: float) -> None:
        """Which answers have a confidence below `reject_below`."""
        self.op("Less", ["confidence", self.float32("reject_below", reject_below)], "unsure")

    def split(self, k: int, image_next: bool) -> None:
        """Separate the samples that leave at exit k from those that go on to stage k + 1, which takes
        their features or, if `image_next`, their images."""
        at, after = f"exit{k}", f"exit{k + 1}"
        index = self.int64(f"{at}.index", k - 1)
        self.op("Gather", ["thresholds", index], f"{at}.threshold")
        self.op("GreaterOrEqual", [f"{at}.measured", f"{at}.threshold"], f"{at}.leaves")
        self.op("Not", [f"{at}.leaves"], f"{at}.stays")
        for name in ("rows", "probabilities", "measured"):
            self.op("Compress", [f"{at}.{name}", f"{at}.leaves"], f"{at}.{name}.left", axis=0)
        staying = [(f"{at}.rows", f"{after}.rows")]
        if not image_next:
            features = features_of(k)
            staying.append((prefixed(k, features), prefixed(k + 1, features)))
        if self.combine == "running":
            staying.append((f"{at}.sum", f"{after}.before"))
        for name, next_name in staying:
            self.op("Compress", [name, f"{at}.stays"], next_name, axis=0)
        if image_next:
            self.op("Gather", [IMAGE, f"{after}.rows"], prefixed(k + 1, IMAGE), axis=0)

    def gather(self, depth: int) -> None:
        """Write every sample's answer to its row; at exit `depth` all remaining samples leave."""
        for k in range(1, depth + 1):
            left = f"exit{k}.rows" + (".left" if k < depth else "")
            self.op("Shape", [left], f"exit{k}.count")
            value = numpy_helper.from_array(np.array([k], np.int64))
            self.op("ConstantOfShape", [f"exit{k}.count"], f"exit{k}.exit.left", value=value)
        self.op("Concat", self.left("rows", depth), "rows", axis=0)
        self.op("Unsqueeze", ["rows", self.int64("last", [-1])], "rows.index")
        self.op("Shape", ["rows"], "rows.shape")
        classes = self.int64("classes", [self.classes])
        self.op("Concat", ["rows.shape", classes], "answers.shape", axis=0)
        for name, kind in GATHERED.items():
            shape = "answers.shape" if name == "probabilities" else "rows.shape"
            empty = numpy_helper.from_array(np.zeros(1, kind))
            self.op("ConstantOfShape", [shape], f"{name}.empty", value=empty)
            self.op("Concat", self.left(name, depth), f"{name}.left", axis=0)
            self.op("ScatterND", [f"{name}.empty", "rows.index", f"{name}.left"], name)

    def left(self, name: str, depth: int) -> list[str]:
        """The parts of `name` that leave at each exit. At the last exit that is the whole tensor, except
        for the exit's number, which `gather` creates."""
        last = f"exit{depth}.{name}" + (".left" if name == "exit" else "")
        return [*(f"exit{k}.{name}.left" for k in range(1, depth)), last]

    def op(self, kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def int64(self, name: str, value: int | list[int]) -> str:
        return self.constant(f"router.{name}", np.array(value, np.int64))

    def float32(self, name: str, value: float) -> str:
        return self.constant(f"router.{name}", np.array(value, np.float32))

    def constant(self, name: str, value: NDArray[Any]) -> str:
        if all(known.name != name for known in self.constants):
            self.constants.append(numpy_helper.from_array(value, name))
        return name
