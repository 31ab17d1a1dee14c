"""Settings, from flags of `offramp serve` or `OFFRAMP_*` environment variables."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from offramp.validation import first_problem
from serving.errors import SettingsError
from serving.setting_types import Addresses, Bundles, Hosts, Origins

Provider = Literal["cpu", "cuda", "auto"]
Pool = Literal["own", "spinning", "shared"]
MIB = 1 << 20
ROOT_PATH = r"^(/[A-Za-z0-9._~-]+)*$"
# Pillow refuses larger images in any case.
PILLOW_LIMIT = 178_956_970


# A container's limit of CPU time, in cgroup v2: microseconds, or "max", of every period of so many.
CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")


def available_cores() -> int:
    """The CPU cores this process may run on, or those that its container's CPU time fills, if they are fewer;
    at least one."""
    affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    cores = len(affinity) or os.cpu_count() or 1
    try:
        quota, period = map(int, CPU_LIMIT.read_text().split())
    except (OSError, ValueError):  # there is none
        return cores
    return min(cores, max(1, quota // period))


class Settings(BaseSettings):
    """The server's settings; a description says what one does, and why its default if that is not obvious."""

    model_config = SettingsConfigDict(env_prefix="OFFRAMP_", extra="forbid", frozen=True)

    host: str = Field(
        "127.0.0.1", description="Address to listen on; beyond loopback, admin routes need a key."
    )
    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        8000, description="Port to listen on, 0 for any free one; uvicorn's default."
    )
    bundles: Bundles = Field(
        (),
        description="Bundles: directories, packed files or https addresses with a sha256; separated "
        "like PATH, or by spaces if an address is among them.",
    )
    threads: Annotated[int, Field(ge=1)] = Field(
        1,
        description="onnxruntime threads within one stage; one, because small stages gain more from "
        "several requests at once.",
    )
    pool: Pool = Field(
        "own",
        description="Threads of a stage, if there are several: `own` (which sleep when idle), "
        "`spinning`, or `shared` by all stages.",
    )
    workers: Annotated[int, Field(ge=1)] = Field(
        default_factory=available_cores,
        description="Threads that decode and compute; each keeps a core busy. A container's limit of CPU "
        "time counts.",
    )
    provider: Provider = Field(
        "cpu", description="Where stages run: `cpu`, `cuda` or `auto`; every machine has a CPU."
    )
    max_body_bytes: Annotated[int, Field(ge=1)] = Field(
        10 * MIB, description="Largest request body, in bytes; a phone's photo fits."
    )
    max_pixels: Annotated[int, Field(ge=1, le=PILLOW_LIMIT)] = Field(
        50_000_000,
        description="Most pixels of one image, from its header; a decoded phone's photo takes under "
        "200 MB.",
    )
    max_images: Annotated[int, Field(ge=1)] = Field(
        64, description="Most images of one request; more would occupy a worker for too long."
    )
    max_queue_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        500.0,
        description="Longest predicted wait of an accepted request, in milliseconds; beyond it the "
        "answer is 429.",
    )
    max_queue_bytes: Annotated[int, Field(ge=1)] = Field(
        256 * MIB,
        description="Most bytes of images waiting, and as many of bodies that are arriving; beyond it the "
        "answer is 429. Fits the smallest containers.",
    )
    target_p99_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None,
        description="The 99th percentile of latency to hold, in milliseconds, by cheaper policies of the "
        "bundle's gears; off by default.",
    )
    accuracy_floor: Annotated[float, Field(ge=0, le=100)] | None = Field(
        None,
        description="With `target_p99_ms`: least accuracy of a gear in percent, by the lower end of its "
        "interval on the bundle's table.",
    )
    grace_seconds: Annotated[int, Field(ge=0)] = Field(
        30,
        description="How long accepted requests may take after SIGTERM; Kubernetes waits as long.",
    )

    # Operations: loading while serving, keys, connections, logs and traces.
    repository: Path | None = Field(
        None,
        description="A directory of bundles to serve, and to load from while serving.",
    )
    watch: bool = Field(
        False,
        description="Whether bundles that appear, change or disappear in the repository are loaded, "
        "swapped or unloaded.",
    )
    canary: str | None = Field(
        None,
        description="A bundle, as in `bundles`, that begins as the canary of the model of its name; off by "
        "default.",
    )
    canary_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.1, description="With `canary`: the share of requests that it takes at the start."
    )
    canary_header: str | None = Field(
        None,
        description="With `canary`: a header, such as `X-User`, whose values are assigned to versions "
        "instead of single requests.",
    )
    api_key: SecretStr | None = Field(
        None,
        description="The key of admin routes, at least 16 characters; without one they answer on "
        "loopback only.",
    )
    api_key_file: Path | None = Field(
        None, description="A file with that key, read at the start and at SIGHUP."
    )
    budgets: Path | None = Field(
        None,
        description="A TOML file with the keys of clients and their budgets of multiply-accumulates; beyond"
        " its own a client gets shallower answers. Off by default.",
    )
    header_timeout_seconds: Annotated[float, Field(gt=0)] = Field(
        10,
        description="How long a request's head may take to arrive.",
    )
    body_timeout_seconds: Annotated[float, Field(gt=0)] = Field(
        10,
        description="The span in which a body must grow by 1 KiB a second, and a client read some of "
        "its answer.",
    )
    keep_alive_seconds: Annotated[int, Field(ge=1)] = Field(
        75,
        description="How long an idle connection stays open; longer than the 60 seconds of common "
        "load balancers.",
    )
    max_connections: Annotated[int, Field(ge=1)] = Field(
        1024,
        description="Most open connections; beyond it the longest idle one is closed, or the new one "
        "gets 503.",
    )
    cors_origins: Origins = Field(
        (),
        description="Origins whose pages may send requests and read answers, such as `https://example.org`, "
        "separated by spaces; `*` for all.",
    )
    root_path: Annotated[str, Field(pattern=ROOT_PATH)] = Field(
        "",
        description="The path under which a proxy serves this server, such as `/offramp`; requests may come "
        "with or without it.",
    )
    forwarded_allow_ips: Addresses = Field(
        (),
        description="Addresses and networks of proxies whose X-Forwarded-For names the client in logs, "
        "separated by spaces; `*` for all.",
    )
    drain_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        1,
        description="How long after SIGTERM new connections are accepted; raise it to what a load "
        "balancer needs.",
    )
    access_log: bool = Field(
        False,
        description="Whether to print a line of JSON per request; metrics usually suffice.",
    )
    record: Path | None = Field(
        None,
        description="A directory to record answered requests in, for `offramp tune --from` and feedback.",
    )
    record_full_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.1,
        description="The share of recorded requests that run all exits after their answer, at low "
        "priority; only these can be tuned on.",
    )
    record_images: bool = Field(
        False, description="Whether records have the images as well; by default they have none."
    )
    record_max_bytes: Annotated[int, Field(ge=MIB)] = Field(
        256 * MIB,
        description="Most bytes in that directory; the oldest records are removed. About 100,000 answers "
        "of 100 classes and four exits.",
    )
    shadow_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0,
        description="The share of the images that left early that goes on to full depth after its answer, to "
        "check the exits; 0 checks nothing, 0.02 is a start.",
    )
    shadow_max_work: Annotated[float, Field(gt=0, le=1)] = Field(
        0.05,
        description="Most work of these, as a share of the workers' time that requests take; beyond it they "
        "are dropped.",
    )
    jobs: Path | None = Field(
        None,
        description="A directory for jobs of many images (`POST /v1/jobs`); without one they are refused.",
    )
    job_max_images: Annotated[int, Field(ge=1, le=100_000)] = Field(
        10_000, description="Most images of one job."
    )
    job_max_bytes: Annotated[int, Field(ge=1)] = Field(
        256 * MIB, description="Most bytes of a job's body, and of its images once unpacked."
    )
    jobs_max_unfinished: Annotated[int, Field(ge=1)] = Field(
        16, description="Most jobs that are uploaded, wait or run; beyond it the answer is 429."
    )
    jobs_max_bytes: Annotated[int, Field(ge=1)] = Field(
        2048 * MIB,
        description="Most bytes of all jobs on disk; the oldest results make room for new jobs, then the "
        "answer is 429.",
    )
    jobs_keep_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        86_400, description="How long the results of a finished job are kept; a day."
    )
    job_callback_hosts: Hosts = Field(
        (),
        description="Hosts that may be notified of finished jobs, such as `example.org` or "
        "`example.org:8443`, separated by spaces; by default none.",
    )
    otel: bool = Field(
        False,
        description="Whether to trace requests with OpenTelemetry, set up by its OTEL_* variables; "
        "takes time on every request.",
    )

    @model_validator(mode="after")
    def _watching_needs_a_repository(self) -> Self:
        if self.watch and self.repository is None:
            raise ValueError("watch needs a repository to watch")
        return self

    @model_validator(mode="after")
    def _a_target_has_a_floor(self) -> Self:
        if (self.target_p99_ms is None) != (self.accuracy_floor is None):
            raise ValueError("target_p99_ms and accuracy_floor go together")
        if self.target_p99_ms is not None and self.canary is not None:
            raise ValueError("target_p99_ms and canary do not go together")
        if self.target_p99_ms is not None and self.target_p99_ms >= self.max_queue_ms:
            raise ValueError(
                "target_p99_ms must be below max_queue_ms, or requests are refused before a shift"
            )
        return self

    @model_validator(mode="after")
    def _a_request_fits(self) -> Self:
        if self.max_body_bytes > self.max_queue_bytes:
            raise ValueError("max_body_bytes must not be larger than max_queue_bytes")
        return self


def read_settings(**flags: object) -> Settings:
    """Settings from `flags` that are not None, then the environment, then the defaults.

    Raises SettingsError if one of them is not valid.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        problem = first_problem(error)
        raise SettingsError(
            f"The setting {problem.place[0]} is not valid: {problem.reason}."
            if problem.place
            else f"{problem.reason}."
        ) from error
