"""Check: every file is as the manifest states, and who vouches for the manifest."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path

from edgeformer.doctor.examination import Examination
from edgeformer.doctor.finding import Finding, error, fine, info
from edgeformer_runtime.bundle.manifest import MANIFEST_NAME
from edgeformer_runtime.cli.tables import refusals
from edgeformer_runtime.errors import BundleError

CHECK = "integrity"


def check_integrity(examination: Examination) -> Iterable[Finding]:
    """What opening the bundle has shown already, and the state of its signature."""
    bundle = examination.bundle
    yield fine(CHECK, f"{len(bundle.manifest.files)} files, all with the manifest's hashes")
    if bundle.refused:
        yield error(
            CHECK,
            f"the gates of its conversion refused it: {'; '.join(refusals(bundle))}",
            "its answers are farther from its checkpoint's than its precision allows; no reader answers unasked",
            "convert it otherwise; `edgeformer verify --layers` names a wrong layer, `edgeformer eval` what it costs",
        )
    state = bundle.signature
    if state.checked_by is not None:
        yield fine("signature", f"valid, by the key {state.checked_by[:16]}")
    elif state.signed:
        yield info(
            "signature",
            "signed, but not checked",
            "a signature protects only those who check it",
            "name the publisher's key with --require-signature",
        )
    else:
        yield info(
            "signature",
            "unsigned",
            "hashes show accidents, not attacks: who can change a file can change its hash as well",
            "sign it (edgeformer sign) if it travels to devices apart from the app",
        )


def refused(path: Path, problem: BundleError, signature_required: bool) -> Finding:
    """What a bundle that the reader refuses is said to have.

    Raises:
        BundleError: the path is no bundle at all.
    """
    if not ((path / MANIFEST_NAME).is_file() or zipfile.is_zipfile(path)):
        raise problem
    return error(
        "signature" if signature_required and "signature" in str(problem) else CHECK,
        str(problem),
        "every reader refuses the bundle, and nothing else of it was looked at",
        "fetch the bundle from where it was published, or convert the checkpoint again",
    )
