"""Check: the oldest iOS and Android that the app supports run the bundle."""

from __future__ import annotations

from collections.abc import Iterable

from edgeformer.doctor.examination import Examination
from edgeformer.doctor.finding import Finding, error, fine
from edgeformer.doctor.versions import older, parse_version

CHECK = "systems"


def check_systems(examination: Examination) -> Iterable[Finding]:
    """`--min-ios` and `--min-android-api` against what the manifest requires."""
    options, manifest = examination.options, examination.bundle.manifest
    wanted = {
        "iOS": (options.min_ios, manifest.requires.ios),
        "Android API": (
            None if options.min_android_api is None else str(options.min_android_api),
            None if manifest.requires.android_api is None else str(manifest.requires.android_api),
        ),
    }
    for system, (minimum, required) in wanted.items():
        if minimum is None:
            continue
        if required is None:
            yield error(
                CHECK,
                f"a bundle for {manifest.target} does not run on {system.split()[0]}",
                "the app could not open it on any such device",
                "convert the checkpoint for another target as well, and ship that bundle there",
            )
        elif older(parse_version(minimum, system), parse_version(required, system)):
            yield error(
                CHECK,
                f"the bundle needs {system} {required}, the app supports {system} {minimum}",
                "on older devices the app cannot open it",
                f"raise the app's minimum to {system} {required}, or convert for a target that runs on {minimum}",
            )
        else:
            yield fine(CHECK, f"runs on {system} {minimum}")
