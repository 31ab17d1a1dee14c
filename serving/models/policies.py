"""A loaded model with another policy: certificate verified, gears fitted."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from exports.bundle.errors import BundleError
from exports.bundle.manifest import POLICY
from exports.bundle.policy import Policy
from exports.bundle.reader import read_policy
from exports.tuning.preview import PolicyPreview
from serving.errors import BadBundleError, InvalidRequestError
from serving.models.certificates import CertificateError, CertificateVerifier
from serving.models.checks import check_fits
from serving.models.gears import GearReader
from serving.models.registry import LoadedModel


class PolicyApplier:
    """Makes the LoadedModel of a change of policy; ModelManager publishes it. Files are read and certificates
    verified in threads."""

    def __init__(self, accuracy_floor: float | None) -> None:
        self._certificates = CertificateVerifier()
        self._gears = GearReader(accuracy_floor)

    def of_bundle(self, model: LoadedModel) -> LoadedModel:
        """`model`, just opened, with the certificate and the gears of its bundle. Raises BundleError."""
        manifest = model.engine.manifest
        # A table of its own, so that a loaded model does not keep it in memory.
        table = PolicyPreview(model.path, manifest)
        try:
            verified = self._certificates.verify(model.policy, manifest, table)
        except CertificateError as error:
            raise BundleError(f"{model.path / POLICY}: {error}") from error
        gears = self._gears.read(model.path, manifest, model.policy, table)
        return replace(model, certificate_verified=verified, gears=gears)

    async def check(self, policy: Policy, model: LoadedModel) -> bool | None:
        """Whether the certificate of `policy` is verified by the bundle of `model`, None if it has none.

        Raises InvalidRequestError if `policy` does not fit `model` or its certificate is contradicted,
        BadBundleError if the bundle has changed, so that the certificate cannot be checked.
        """
        check_fits(policy, model)
        try:
            return await self.verify(policy, model)
        except CertificateError as error:
            raise InvalidRequestError(str(error)) from error
        except BundleError as error:
            raise BadBundleError(str(error)) from error

    async def applied(
        self, model: LoadedModel, policy: Policy, verified: bool | None
    ) -> LoadedModel:
        """`model` with `policy` in force, and its gears under it; raises what GearReader.under raises."""
        gears = await asyncio.to_thread(self._gears.under, policy, model.gears, model.calibration)
        return replace(
            model, policy=policy, certificate_verified=verified, gears=gears, raised_from=None
        )

    async def raised(self, model: LoadedModel, least: Mapping[int, float]) -> LoadedModel:
        """`model` with the thresholds of its policy at least `least`, by exit, and no certificate. Raises
        BundleError if the bundle's table is damaged."""
        policy = model.policy.raised(least)
        before = model.raised_from or model.policy
        gears = await asyncio.to_thread(
            self._gears.raised, policy, before, model.gears, model.calibration
        )
        return replace(
            model, policy=policy, certificate_verified=None, gears=gears, raised_from=before
        )

    async def reread(self, model: LoadedModel) -> LoadedModel:
        """`model` with the policy that its bundle has now; `model` itself if that has not changed. Raises
        BundleError."""
        stored = await asyncio.to_thread(read_policy, model.path, model.engine.manifest)
        if model.stored == stored:
            return model
        check_fits(stored, model)
        verified = await self.verify(stored, model)
        return replace(await self.applied(model, stored, verified), stored=stored)

    async def reread_gears(self, model: LoadedModel) -> LoadedModel:
        """`model` with the gears that its bundle has now; `model` itself if they have not changed. Raises
        BundleError."""
        manifest = model.engine.manifest
        if not await asyncio.to_thread(self._gears.has_changed, model.path, manifest, model.gears):
            return model
        before = model.raised_from or model.policy
        where = (model.path, manifest, before, model.calibration)
        gears = await asyncio.to_thread(self._gears.read, *where)
        if model.raised_from is not None:
            gears = await asyncio.to_thread(
                self._gears.raised, model.policy, before, gears, model.calibration
            )
        return replace(model, gears=gears)

    async def verify(self, policy: Policy, model: LoadedModel) -> bool | None:
        """See CertificateVerifier.verify."""
        return await asyncio.to_thread(
            self._certificates.verify, policy, model.engine.manifest, model.calibration
        )
