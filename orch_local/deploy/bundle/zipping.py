"""``install.pyz``: the part of this package that needs nothing but Python, as one file that Python runs."""

from __future__ import annotations

import zipfile
from importlib import resources
from pathlib import Path

from orch_local.deploy.bundle.standalone import MODULES, SHARED

_DATE = (1980, 1, 1, 0, 0, 0)
"""The same sources make the same bytes; not compressed, since no two versions of zlib make the same."""
_MAIN = "from orch_local.deploy.bundle.standalone import main\n\nmain()\n"
_SHEBANG = b"#!/usr/bin/env python3\n"


def write_installer(path: Path) -> None:
    """Write the archive."""
    package = resources.files("orch_local")
    names = [*SHARED, *(f"deploy/bundle/{name}.py" for name in MODULES)]
    contents = {f"orch_local/{name}": package.joinpath(name).read_bytes() for name in names}
    contents["__main__.py"] = _MAIN.encode()
    with path.open("wb") as stream:
        stream.write(_SHEBANG)
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
            for name in sorted(contents):
                info = zipfile.ZipInfo(name, _DATE)
                info.external_attr = 0o100644 << 16
                info.create_system = 3  # as on Unix, wherever it is written
                archive.writestr(info, contents[name])
    path.chmod(0o755)
