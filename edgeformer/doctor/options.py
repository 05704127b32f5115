"""What `doctor` is asked: which devices and runtimes the bundle is meant for."""

from __future__ import annotations

import re
from dataclasses import dataclass

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


# Versions of runtimes and systems, compared number by number.


Version = tuple[int, ...]


def parse_version(text: str, option: str) -> Version:
    """The numbers of a version like 2.1.0; what follows the first three, as in 2.13.0+cpu or 1.0.0rc1, is not compared.

    Raises:
        InputError: the text does not begin with a number; `option` is named as what is wrong.
    """
    found = re.match(r"\d+(\.\d+){0,2}", text)
    if found is None:
        raise InputError(f"expected {option} as a version like 2.1.0, found {text!r}")
    return tuple(int(number) for number in found[0].split("."))


def show(version: Version) -> str:
    """The version as text."""
    return ".".join(map(str, version))


def older(version: Version, needed: Version) -> bool:
    """Whether a version is older than the needed one; 2.1 is as old as 2.1.0."""
    length = max(len(version), len(needed))
    return version + (0,) * (length - len(version)) < needed + (0,) * (length - len(needed))
