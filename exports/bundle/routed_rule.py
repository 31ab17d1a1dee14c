"""The rule that a routed graph is made for: all of a policy but its thresholds.

`offramp tune` may choose another one, and its thresholds are meaningless to the graph then.
"""

from __future__ import annotations

import json
from pathlib import Path

from exports.bundle.manifest import Manifest
from exports.bundle.policy import Policy
from exports.bundle.reader import read_graph
from exports.bundle.untrusted.protobuf import BYTES, read_fields

# The key in the graph's metadata; the value is a JSON object of the RULE of the policy.
METADATA_KEY = "policy"
RULE = {"mode", "measure", "combine", "max_exit", "reject_below"}
# Field numbers of ModelProto and StringStringEntryProto: onnx.proto of ONNX 1.23.
METADATA_PROPS, KEY, VALUE = 14, 1, 2


def rule_json(policy: Policy) -> str:
    """The rule of `policy` as a routed graph's metadata have it."""
    return json.dumps(policy.model_dump(mode="json", include=RULE), sort_keys=True)


def routed_remarks(path: Path, manifest: Manifest, policy: Policy) -> list[str]:
    """A sentence for each routed graph of the bundle in `path` that may not be run with the thresholds of
    `policy`. Raises BundleError if a graph is damaged."""
    routed = [entry for entry in manifest.graphs if entry.kind == "routed"]
    remarks = [routed_remark(entry.file, read_graph(path, entry), policy) for entry in routed]
    return [remark for remark in remarks if remark is not None]


def routed_remark(file: str, graph: bytes, policy: Policy) -> str | None:
    """Why the routed graph `graph` in `file` may not be run with the thresholds of `policy`, as a sentence;
    None if it may. Raises MalformedGraphError if it is no ONNX file."""
    rule = _metadata(graph).get(METADATA_KEY)
    if rule is None:
        return (
            f"{file} was exported by a version that did not note its rule: use it with these thresholds only "
            "if the policy's measure, combination and deepest exit are still those of the export."
        )
    if rule == rule_json(policy):
        return None
    return (
        f"{file} has another rule than the policy, so these thresholds do not fit it: export it again with "
        "--graphs routed and the same goal, as --max-accuracy-drop."
    )


def _metadata(graph: bytes) -> dict[str, str]:
    """The metadata of the ONNX file `graph`."""
    metadata = {}
    for entry in read_fields(graph, 0, len(graph)):
        if entry.number == METADATA_PROPS and entry.kind == BYTES:
            texts = {
                field.number: graph[field.start : field.end].decode("utf-8", "replace")
                for field in read_fields(graph, entry.start, entry.end)
            }
            metadata[texts.get(KEY, "")] = texts.get(VALUE, "")
    return metadata
