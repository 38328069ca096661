"""Small bundles, wheels and keys for tests of the side that receives them."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from orch_local.deploy.bundle.manifest import Entry, Manifest, Target
from orch_local.deploy.bundle.parts import write_parts
from orch_local.util.paths import MANIFEST

FILES = {
    "benchmarks/tiny/questions.jsonl": b'{"question": "1 + 1?"}\n' * 40,
    "models/tiny/config.json": b"{}",
    "models/tiny/model.safetensors": bytes(range(256)) * 20,
    "models/tiny/empty.txt": b"",
    "run-files/tiny.yaml": b"agents: []\n",
}


def target_here(**other: str) -> Target:
    """The target that this machine is."""
    values = {
        "python": f"{sys.version_info[0]}.{sys.version_info[1]}",
        "platform": sysconfig.get_platform().replace("-", "_").replace(".", "_"),
        "glibc": "2.17",
        "device": "cpu",
    }
    return Target(**{**values, **other})


def entry_of(path: str, content: bytes) -> Entry:
    """A file's entry."""
    return Entry(path, len(content), hashlib.sha256(content).hexdigest())


def make_bundle(
    folder: Path, files: Mapping[str, bytes], part_size: int | None = None, **values: Any
) -> Manifest:
    """Make a bundle in a new folder, of files as they are or of parts."""
    sources = folder.with_name(folder.name + "-sources") if part_size else folder
    folder.mkdir(parents=True)
    pairs = []
    for path, content in sorted(files.items()):
        place = sources / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        pairs.append((place, entry_of(path, content)))
    parts = write_parts(folder, pairs, part_size) if part_size else ()
    values = {"version": "1.0", "target": target_here(), **values}
    manifest = Manifest(files=tuple(entry for _, entry in pairs), parts=parts, **values)
    (folder / MANIFEST).write_bytes(manifest.to_bytes())
    return manifest


def make_wheel(name: str, version: str, files: Mapping[str, str], scripts: str = "") -> tuple[str, bytes]:
    """Make a pure wheel: its file name and its bytes."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    wheel = "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    entry_points = {f"{info}/entry_points.txt": f"[console_scripts]\n{scripts}\n"} if scripts else {}
    content = {**files, f"{info}/METADATA": metadata, f"{info}/WHEEL": wheel, **entry_points}
    record = [f"{path},sha256={_record_digest(text)},{len(text.encode())}" for path, text in content.items()]
    content[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""])
    file_name = f"{module}-{version}-py3-none-any.whl"
    return file_name, _zipped(content)


def _record_digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def _zipped(content: Mapping[str, str]) -> bytes:
    import io

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, text in content.items():
            archive.writestr(zipfile.ZipInfo(path), text)
    return buffer.getvalue()


def wheel_files(*wheels: tuple[str, bytes]) -> dict[str, bytes]:
    """The files of a bundle that has these wheels, its list for pip among them."""
    files = {f"wheels/{name}": content for name, content in wheels}
    lines = [
        f"{_pin(name)} \\\n    --hash=sha256:{hashlib.sha256(content).hexdigest()}\n"
        for name, content in wheels
    ]
    return {**files, "requirements.txt": "".join(lines).encode()}


def _pin(file_name: str) -> str:
    name, version, *_ = file_name.split("-")
    return f"{name.replace('_', '-')}=={version}"


def project_wheels() -> tuple[tuple[str, bytes], ...]:
    """A stand-in for the project, and something that it imports."""
    program = "import tiny_needed\n\ndef main() -> None:\n    print('usage', tiny_needed.VALUE)\n"
    project = make_wheel("orch-local", "1.0", {"tiny_orch.py": program}, "orch-local = tiny_orch:main")
    return project, make_wheel("tiny-needed", "2.1", {"tiny_needed.py": "VALUE = 7\n"})


PROJECT_PINS = ("orch-local==1.0", "tiny-needed==2.1")


class Key(NamedTuple):
    """A key, and a list of allowed signers that has it alone."""

    private: Path
    allowed: Path


def make_key(folder: Path, name: str, options: str = "", passphrase: str = "") -> Key:
    """Make a key of ``name@site``; ``options`` go into the list of allowed signers."""
    folder.mkdir(parents=True, exist_ok=True)
    private = folder / name
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", name, "-f", str(private)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    allowed = folder / f"{name}.allowed"
    public = private.with_suffix(".pub").read_text(encoding="ascii")
    allowed.write_text(f"{name}@site {options} {public}", encoding="ascii")
    return Key(private, allowed)


def tree(root: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path, environments left out."""
    found = {}
    for above, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name != "venv"]
        for name in names:
            path = Path(above, name)
            found[path.relative_to(root).as_posix()] = path.read_bytes()
    return found
