"""A tier of its own: it needs the environment of requirements/cuda.txt, made by `scripts/test.sh cuda`."""

from __future__ import annotations

from importlib import metadata

import pytest
from lab import Lab


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without the CUDA build of vLLM there is nothing to look at: that is a mistake of the caller."""
    try:
        metadata.version("vllm")
    except metadata.PackageNotFoundError:
        pytest.exit("vLLM for CUDA is not installed: bash scripts/test.sh cuda", returncode=4)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The stubs, built once."""
    return Lab.build(tmp_path_factory.mktemp("lab"))
