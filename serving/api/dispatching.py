"""Dispatching a resolved request. Where a canary fails, the stable version answers."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from serving.api.query import ResolvedRequest
from serving.recording.recorder import Images
from serving.scheduling.options import BatchResult
from serving.service import Service

log = logging.getLogger("offramp.canary")


async def dispatch(
    service: Service,
    resolved: ResolvedRequest,
    images: Images,
) -> tuple[ResolvedRequest, BatchResult]:
    """Classify `images`, which are files or pixels uint8 [N, H, W, 3]; returns the request as it was
    answered, and its result. Raises what `Dispatcher.classify` raises."""
    try:
        return resolved, await _classify(service, resolved, images)
    except Exception as error:
        again = resolve_again(service, resolved, error)
        if again is None:
            refund(resolved)
            raise
    try:
        return again, await _classify(service, again, images)
    except Exception:
        refund(again)
        raise


def refund(resolved: ResolvedRequest) -> None:
    """A request has failed: its client is charged nothing."""
    if resolved.reservation is not None:
        resolved.reservation.refund()


def resolve_again(
    service: Service, resolved: ResolvedRequest, error: Exception, *, begun: bool = False
) -> ResolvedRequest | None:
    """The request for the stable version, if `error` is a fault of a canary; else None. Classifying has no
    side effects, so an image may be classified twice. With `begun`, part of the answer was sent already: the
    fault is counted, and the result is None."""
    if resolved.trial is None or not service.canaries.failed(resolved.trial, error) or begun:
        return None
    assert resolved.stable is not None
    log.warning(
        "%s: canary %s failed on a request, which the stable version answers: %s",
        resolved.model.name,
        resolved.model.engine.manifest.version,
        error or type(error).__name__,
    )
    # The comparison has counted it already.
    return replace(resolved.stable, trial=None)


async def _classify(
    service: Service,
    resolved: ResolvedRequest,
    images: Images,
) -> BatchResult:
    engine, options = resolved.model.engine, resolved.options
    if isinstance(images, np.ndarray):
        return await service.dispatcher.classify_pixels(engine, images, options)
    return await service.dispatcher.classify(engine, images, options)
