"""A bill of materials in the JSON of CycloneDX 1.6 (ECMA-424)."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from tools.components import Component


def sbom_text(components: Sequence[Component], epoch: int) -> str:
    """The document; the same components and date give the same text.

    Args:
        components: both products and what they need.
        epoch: seconds since 1970, for its date.
    """
    listed = [_component(each) for each in components if not each.ours]
    document: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": _product(components),
        },
        "components": listed,
        "dependencies": [
            {"ref": reference(each), "dependsOn": [reference(by_name) for by_name in _needed(each, components)]}
            for each in components
        ],
    }
    text = json.dumps(document, sort_keys=True)
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, text)}"
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def reference(component: Component) -> str:
    """A package's address, as the package URL specification has it."""
    return f"pkg:pypi/{component.name}@{component.version}"


def _needed(component: Component, components: Sequence[Component]) -> list[Component]:
    return [each for each in components if each.name in component.needs]


def _product(components: Sequence[Component]) -> dict[str, Any]:
    """The converter, with the runtime as its part."""
    ours = {each.name: _component(each) for each in components if each.ours}
    return ours["edgeformer"] | {"components": [ours["edgeformer-runtime"]]}


def _component(each: Component) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "library",
        "bom-ref": reference(each),
        "name": each.name,
        "version": each.version,
        "purl": reference(each),
        "licenses": [{"license": {"name": each.licence}}],
    }
    if each.home is not None and each.home.startswith(("http://", "https://")):
        found["externalReferences"] = [{"type": "website", "url": each.home}]
    return found
