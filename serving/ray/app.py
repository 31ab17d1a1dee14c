"""The Ray Serve application: `serving.ray.app:build` in a file for `serve deploy`."""

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

# A replica refuses by itself what would wait for too long, with 429; Ray's proxy would let it queue.
MAX_ONGOING_REQUESTS = 1024
# Calls that wait in a stage's replica make its next batch.
MAX_STAGE_CALLS = 64
# One for each replica that follows, and those that change something.
MAX_FOLLOWERS = 10_000


def build(args: dict[str, Any]) -> Any:
    """The application that `args`, as Arguments, asks for; raises SettingsError or BundleError."""
    arguments = read_arguments(args)
    settings = arguments.serving()
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
            **_scaled(arguments.stage(number), settings),
        )
        .bind(number, settings)
        for number in range(1, _stages(arguments) + 1)
    ]
    ingress = serve.deployment(serve.ingress()(Replica)).options(
        name="offramp",
        user_config=config,
        max_ongoing_requests=MAX_ONGOING_REQUESTS,
        **_scaled(arguments.replicas, settings),
    )
    return ingress.bind(settings, policy_store.bind(), *stages)


def _stages(arguments: Arguments) -> int:
    """How many stages have a deployment of their own."""
    if arguments.form == "replicas":
        return 0
    return max(len(read_manifest(resolve_bundle(bundle)).exits) for bundle in arguments.bundles)


def _scaled(scaling: Scaling, settings: Settings) -> dict[str, Any]:
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
        # Ray would write a line per request; see the setting access_log.
        "logging_config": {"enable_access_log": False},
        "graceful_shutdown_timeout_s": settings.grace_seconds,
        "graceful_shutdown_wait_loop_s": 0.2,
    }
