"""Makes a Core ML package depend on nothing but the model: no dates, no random identifiers, no leftovers of tools."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

from edgeformer_converters.mil.program import PACKAGE_DATA, PACKAGE_MODEL

MANIFEST_FILE = "Manifest.json"
# Identifiers in a package's manifest only have to differ from each other.
IDENTIFIERS = uuid.uuid5(uuid.NAMESPACE_URL, "https://developer.apple.com/documentation/coreml")
CONVERSION_DATE = "com.github.apple.coremltools.conversion_date"


def normalize_package(package: Path) -> tuple[str, ...]:
    """Rewrite a package so that two conversions of one model give the same bytes.

    Args:
        package: an `.mlpackage` folder that coremltools wrote.

    Returns:
        The package's files, relative to it, in order.
    """
    from coremltools.proto import Model_pb2

    manifest = json.loads((package / MANIFEST_FILE).read_text())
    items = {_identifier(item["path"]): item for item in manifest["itemInfoEntries"].values()}
    root = _identifier(manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"])
    manifest |= {"itemInfoEntries": items, "rootModelIdentifier": root}
    (package / MANIFEST_FILE).write_text(json.dumps(manifest, indent=4, sort_keys=True) + "\n")

    path = package / PACKAGE_DATA / PACKAGE_MODEL
    specification = Model_pb2.Model.FromString(path.read_bytes())
    specification.description.metadata.userDefined.pop(CONVERSION_DATE, None)
    path.write_bytes(specification.SerializeToString(deterministic=True))

    kept = {MANIFEST_FILE, *(str(PACKAGE_DATA / name) for name in (PACKAGE_MODEL, "weights/weight.bin"))}
    files = {str(file.relative_to(package)): file for file in package.rglob("*") if file.is_file()}
    for name, file in files.items():
        if name in kept:
            file.chmod(0o644)
        else:
            file.unlink()
    return tuple(sorted(name for name in files if name in kept))


def _identifier(path: str) -> str:
    return str(uuid.uuid5(IDENTIFIERS, path))
