"""The bill of materials of a bundle: CycloneDX 1.6 as JSON, by the library of the standard's makers.

There is no time in it, and its serial number follows from its content: the same bundle has the same one.

Source
------
CycloneDX 1.6, https://cyclonedx.org/docs/1.6/json/
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from orch_local.deploy.bundle.completeness import Wheel, World, requirements_of
from orch_local.deploy.bundle.manifest import Content, Entry

if TYPE_CHECKING:
    from cyclonedx.model import HashType
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component
    from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression

PATH = "sbom.cdx.json"
PROJECT = "orch-local"
_LONGEST_LICENCE = 100
_CLASSIFIER = "License :: "


class Materials(NamedTuple):
    """What a bundle is made of."""

    world: World
    models: Sequence[Content]
    benchmarks: Sequence[Content]
    files: Mapping[str, Entry]
    """By place in the bundle."""
    roots: Sequence[str]


def write_sbom(materials: Materials) -> bytes:
    """The bill of materials of a bundle."""
    from cyclonedx.output.json import JsonV1Dot6

    values = json.loads(JsonV1Dot6(_bom(materials)).output_as_string())
    values["metadata"].pop("timestamp", None)
    values.pop("serialNumber", None)
    content = json.dumps(values, sort_keys=True, ensure_ascii=True)
    serial = uuid.uuid5(uuid.NAMESPACE_URL, content)
    values["serialNumber"] = f"urn:uuid:{serial}"
    return (json.dumps(values, indent=1, sort_keys=True, ensure_ascii=True) + "\n").encode()


def _bom(materials: Materials) -> Bom:
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import ComponentType

    wheels = {wheel.name: _wheel(wheel, materials.files) for wheel in materials.world.wheels}
    root = wheels.pop(PROJECT)
    root.type = ComponentType.APPLICATION
    models = [_content(one, ComponentType.MACHINE_LEARNING_MODEL, materials) for one in materials.models]
    data = [_content(one, ComponentType.DATA, materials) for one in materials.benchmarks]
    bom = Bom(components=[*wheels.values(), *models, *data], metadata=BomMetaData(component=root))
    wanted: dict[str, set[str]] = {name: set() for name in (PROJECT, *wheels)}
    for wanting, requirement in requirements_of(materials.world, materials.roots):
        name = requirement.name.lower().replace("_", "-").replace(".", "-")
        if name in wheels:
            wanted[wanting].add(name)
    for name, needed in sorted(wanted.items()):
        known = [wheels[one] for one in sorted(needed) if one != name]
        bom.register_dependency(wheels.get(name, root), [*known, *(models + data if name == PROJECT else [])])
    return bom


def _wheel(wheel: Wheel, files: Mapping[str, Entry]) -> Component:
    from cyclonedx.model.component import Component
    from packageurl import PackageURL

    purl = PackageURL("pypi", None, wheel.name, wheel.version)
    return Component(
        name=wheel.name,
        version=wheel.version,
        purl=purl,
        bom_ref=str(purl),
        hashes=[_hash(files[f"wheels/{wheel.path.name}"])],
        licenses=_licences(_licence_of(wheel)),
    )


def _content(content: Content, kind: object, materials: Materials) -> Component:
    """A model or benchmark; it has no digest of its own, so its files are named with theirs."""
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    owner, _, name = content.source.rpartition("/")
    known = bool(content.source) and kind is ComponentType.MACHINE_LEARNING_MODEL
    purl = PackageURL("huggingface", owner or None, name, content.revision or None) if known else None
    entries = [entry for path, entry in materials.files.items() if path.startswith(f"{content.folder}/")]
    return Component(
        name=content.name,
        version=content.revision or None,
        group=owner or None,
        type=kind,  # type: ignore[arg-type]
        purl=purl,
        bom_ref=content.folder,
        licenses=_licences(content.licence),
        components=[_file(entry) for entry in entries],
    )


def _file(entry: Entry) -> Component:
    from cyclonedx.model.component import Component, ComponentType

    return Component(
        name=entry.path, type=ComponentType.FILE, bom_ref=f"file:{entry.path}", hashes=[_hash(entry)]
    )


def _hash(entry: Entry) -> HashType:
    from cyclonedx.model import HashAlgorithm, HashType

    return HashType(alg=HashAlgorithm.SHA_256, content=entry.sha256)


def _licence_of(wheel: Wheel) -> str:
    """As the wheel tells it: an expression, a name, or a classifier. Many have the whole text as name."""
    expression = wheel.metadata.get("license_expression", "")
    lines = wheel.metadata.get("license", "").strip().splitlines()
    classifiers = [one for one in wheel.metadata.get("classifiers", []) if one.startswith(_CLASSIFIER)]
    named = lines[0].strip() if len(lines) == 1 and lines[0].strip() != "UNKNOWN" else ""
    short = named if len(named) <= _LONGEST_LICENCE else ""
    classified = " / ".join(one.rpartition(" :: ")[2] for one in sorted(classifiers))
    return expression or short or classified or (lines[0].strip()[:_LONGEST_LICENCE] if lines else "")


def _licences(text: str) -> Iterable[LicenseExpression | DisjunctiveLicense]:
    from cyclonedx.contrib.license.factories import LicenseFactory

    plain = "".join(sign for sign in text if sign.isprintable()).strip()
    return [LicenseFactory().make_from_string(plain)] if plain else []
