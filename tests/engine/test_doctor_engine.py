"""Doctor on a real engine: what it says of the device it computes on."""

from __future__ import annotations

import re

import pytest

from orch_local.deploy.doctor import lanes
from orch_local.deploy.doctor.checks import Finding
from orch_local.deploy.doctor.request import DoctorRequest


def looked(request: DoctorRequest, *parts: str) -> dict[str, list[Finding]]:
    """The findings of some parts, by check."""
    page = lanes.examine(request, parts=[parts])
    found: dict[str, list[Finding]] = {}
    for one in page.findings:
        found.setdefault(one.id, []).append(one)
    return found


def levels(found: dict[str, list[Finding]], check: str) -> list[str]:
    return [one.level.value for one in found[check]]


@pytest.mark.vllm
@pytest.mark.slow
def test_the_real_engine_says_what_it_computes_on() -> None:
    found = looked(DoctorRequest(), "engine")
    assert levels(found, "torch-import") == ["green"]
    assert levels(found, "engine-import") == ["green"], found
    assert re.fullmatch(r"vLLM [\d.]+\S*, platform (cpu|cuda)", found["engine-import"][0].fact)
