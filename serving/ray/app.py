"""The Ray Serve application; files for `serve deploy` name it `serving.ray.app:build`."""

from __future__ import annotations

from typing import Any

from ray import serve

from exports.bundle.reader import read_manifest
from exports.bundle.resolve import resolve_bundle
from serving.ray.arguments import Arguments, Scaling, read_arguments
from serving.ray.policy_deployment import PolicyStoreDeployment
from serving.ray.replica import Replica
from serving.ray.stage import Stage
from serving.settings import Settings

# High enough that a replica refuses requests that would wait too long, with 429, before Ray's proxy
# queues them.
MAX_ONGOING_REQUESTS = 1024
# Calls that wait in a stage's replica form its next batch.
MAX_STAGE_CALLS = 64
# The policy store has one call open for each replica that follows it, besides changes.
MAX_FOLLOWERS = 10_000


def build(args: dict[str, Any]) -> Any:
    """The application for `args`, see Arguments; raises SettingsError or BundleError."""
    arguments = read_arguments(args)
    settings = arguments.read_settings()
    config = {
        "bundles": list(arguments.bundles),
        "policies": {
            name: policy.model_dump(mode="json") for name, policy in arguments.policies.items()
        },
    }
    policy_store = serve.deployment(PolicyStoreDeployment).options(
        name="policies",
        num_replicas=1,
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=MAX_FOLLOWERS,
        graceful_shutdown_timeout_s=1,
        graceful_shutdown_wait_loop_s=0.2,
    )
    stages = [
        serve.deployment(Stage)
        .options(
            name=f"stage{number}",
            user_config=config,
            max_ongoing_requests=MAX_STAGE_CALLS,
            **_scaling_options(arguments.stage(number), settings),
        )
        .bind(number, settings)
        for number in range(1, _stage_count(arguments) + 1)
    ]
    ingress = serve.deployment(serve.ingress()(Replica)).options(
        name="offramp",
        user_config=config,
        max_ongoing_requests=MAX_ONGOING_REQUESTS,
        **_scaling_options(arguments.replicas, settings),
    )
    return ingress.bind(settings, policy_store.bind(), *stages)


def _stage_count(arguments: Arguments) -> int:
    """The number of stages with their own deployment."""
    if arguments.form == "replicas":
        return 0
    return max(len(read_manifest(resolve_bundle(bundle)).exits) for bundle in arguments.bundles)


def _scaling_options(scaling: Scaling, settings: Settings) -> dict[str, Any]:
    return {
        "autoscaling_config": {
            name: getattr(scaling, name)
            for name in (
                "min_replicas",
                "max_replicas",
                "target_ongoing_requests",
                "upscale_delay_s",
                "downscale_delay_s",
            )
        },
        "max_replicas_per_node": scaling.max_replicas_per_node,
        "ray_actor_options": {"num_cpus": scaling.num_cpus, "num_gpus": scaling.num_gpus},
        # Ray would write a line per request; the setting access_log does that.
        "logging_config": {"enable_access_log": False},
        "graceful_shutdown_timeout_s": settings.grace_seconds,
        "graceful_shutdown_wait_loop_s": 0.2,
    }
