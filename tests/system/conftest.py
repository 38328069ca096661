"""The SLURM cluster that tests of the system share, one for each file of tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from slurm_cluster import Cluster, NoClusterError


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """The cluster; it has no accounting database."""
    # Not below pytest's own folder: munged wants its socket where all may come, and at a short path.
    with TemporaryDirectory(prefix="orch-slurm-") as folder:
        Path(folder).chmod(0o755)
        made = Cluster(Path(folder))
        try:
            made.start()
        except NoClusterError as error:
            pytest.skip(f"no SLURM cluster can be started here: {error}")
        try:
            yield made
        finally:
            made.stop()
