"""What `doctor` is asked: which devices and runtimes the bundle is meant for."""

from __future__ import annotations

from dataclasses import dataclass

from edgeformer.doctor.versions import parse_version
from edgeformer_runtime.bundle.requirement import NO_REQUIREMENT, Requirement
from edgeformer_runtime.errors import InputError

ANDROID_API_RANGE = (1, 99)


@dataclass(frozen=True)
class DoctorOptions:
    """Options of one examination.

    Attributes:
        min_ios: the oldest iOS that the app supports ("17.0"); None: not asked.
        min_android_api: the oldest Android API level that the app supports; None: not asked.
        runtime: the version of the target's runtime on the device; None: that of the bundle's toolchain.
        required: what the bundle must be.
    """

    min_ios: str | None = None
    min_android_api: int | None = None
    runtime: str | None = None
    required: Requirement = NO_REQUIREMENT

    def __post_init__(self) -> None:
        if self.min_ios is not None:
            parse_version(self.min_ios, "--min-ios")
        low, high = ANDROID_API_RANGE
        if self.min_android_api is not None and not low <= self.min_android_api <= high:
            raise InputError(f"expected --min-android-api as {low} to {high}, found {self.min_android_api}")
