"""Signatures of manifests, made and checked by the ``ssh-keygen`` that is installed.

A signature proves who made a bundle only against a list of allowed signers that came another way than the
bundle did. All that is signed is the manifest: it has the digest of every other byte.

Source
------
The allowed signers file, and what makes a signature valid: ssh-keygen(1), ALLOWED SIGNERS.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from orch_local.deploy.bundle.inside import reading
from orch_local.deploy.bundle.manifest import MAX_BYTES
from orch_local.errors import InputError, OrchError
from orch_local.util.paths import MANIFEST, SIGNATURE

NAMESPACE = "orch-local-bundle"
"""What the signature is for: one made for a git commit, say, is none of a bundle."""
_LONGEST = 64 * 2**10
"""Bytes of a signature; one with a certificate of 16,000 bits has a tenth of that."""
_AGAIN = "have the bundle made, signed and copied again, and ask who sent it"


class SignatureError(OrchError):
    """A bundle is not signed by somebody who may, or not as it lies there."""


@dataclass(frozen=True, slots=True)
class Signers:
    """Whose signature counts."""

    allowed: Path
    """The file of allowed signers, which did not come with the bundle."""
    identity: str | None = None
    """The one principal of it that may have signed; any of them where there is none."""
    revoked: Path | None = None
    """Public keys, or an OpenSSH revocation list, that count no more."""


def sign(manifest_path: Path, key: Path) -> None:
    """Sign a manifest; the signature lies beside it.

    Parameters
    ----------
    key:
        The private key, or the public one where an agent or a token holds the other. A passphrase is asked
        for at the terminal.

    Raises
    ------
    SignatureError
        If it could not be signed; there is no signature then, not even an older one.
    """
    if not key.is_file():
        raise InputError(
            "there is no such key", where=str(key), hint="ssh-keygen -t ed25519 -f KEY makes one"
        )
    beside = manifest_path.parent / SIGNATURE
    beside.unlink(missing_ok=True)  # or ssh-keygen would ask about it
    arguments = ["-Y", "sign", "-n", NAMESPACE, "-f", str(key.resolve()), str(manifest_path.resolve())]
    answer = _ssh_keygen(arguments, None)
    if answer.returncode or not beside.is_file():
        raise SignatureError(
            f"cannot sign: {_words(answer)}",
            where=str(key),
            hint="a key with a passphrase needs a terminal, or `ssh-add KEY` before; its mode must be 0600",
        )


def check(
    manifest_path: Path, allowed_signers: Path, identity: str | None, revoked: Path | None = None
) -> str:
    """Check the signature beside a manifest, and tell whose it is.

    Raises
    ------
    SignatureError
        If there is none, or it is not good.
    """
    try:
        with reading(manifest_path.parent, manifest_path.name) as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(manifest_path)) from error
    signature = read_signature(manifest_path.parent)
    if signature is None:
        raise unsigned(manifest_path.parent)
    return check_bytes(content, signature, Signers(allowed_signers, identity, revoked))


def unsigned(folder: Path) -> SignatureError:
    """Make the error for a bundle without a signature, where one is asked for."""
    hint = "have it signed: orch-local bundle create ... --sign KEY; or has the copy lost the file?"
    return SignatureError("is not signed", where=str(folder / SIGNATURE), hint=hint)


def read_signature(folder: Path) -> bytes | None:
    """Read the signature of a bundle; nothing where it has none.

    Raises
    ------
    SignatureError
        If it cannot be read, is no plain file, or is far too long.
    """
    where = str(folder / SIGNATURE)
    try:
        with reading(folder, SIGNATURE) as file:
            content = file.read(_LONGEST + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SignatureError(f"cannot be read: {error.strerror}", where=where, hint=_AGAIN) from error
    if len(content) > _LONGEST:
        raise SignatureError("is far too long for a signature", where=where, hint=_AGAIN)
    return content


def fingerprint(content: bytes, signature: bytes) -> str:
    """Check that a signature is one of these bytes, and name the key; whose it is, is not checked.

    Raises
    ------
    SignatureError
        If it is not.
    """
    with tempfile.TemporaryDirectory(prefix="orch-local-") as folder:
        return _fingerprint(content, _kept(signature, folder))


def check_bytes(content: bytes, signature: bytes, signers: Signers) -> str:
    """Check a signature of these bytes, and tell which principal's it is.

    Raises
    ------
    InputError
        If the file of allowed signers cannot be used.
    SignatureError
        If the signature is not good, or of nobody who may sign.
    """
    _check_list(signers)
    with tempfile.TemporaryDirectory(prefix="orch-local-") as folder:
        path = _kept(signature, folder)
        key = _fingerprint(content, path)
        names = [signers.identity] if signers.identity is not None else _principals(path, key, signers)
        refusals = [_refusal(content, path, name, signers) for name in names]
    if (good := next((name for name, why in zip(names, refusals, strict=True) if not why), None)) is not None:
        return good
    raise SignatureError(
        f"was signed with the key {key}, which does not count as {' or '.join(names)}: {refusals[0]}",
        where=MANIFEST,
        hint=f"does {signers.allowed} name this key, for this identity, for now, and was it revoked?",
    )


def _check_list(signers: Signers) -> None:
    for path in filter(None, (signers.allowed, signers.revoked)):
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from error
        if not any(line.strip() and not line.lstrip().startswith(b"#") for line in content.splitlines()):
            raise InputError(
                "names nobody",
                where=str(path),
                hint="a line of it: NAME ssh-ed25519 AAAA..., the key from the .pub file of who signs",
            )


def _kept(signature: bytes, folder: str) -> str:
    """Keep the signature where nobody else writes: three runs of ssh-keygen see the same one."""
    path = Path(folder, "signature")
    path.write_bytes(signature)
    return str(path)


def _fingerprint(content: bytes, path: str) -> str:
    answer = _ssh_keygen(["-Y", "check-novalidate", "-n", NAMESPACE, "-s", path], content)
    words = _words(answer)
    if not answer.returncode:
        return next((word for word in words.split() if word.startswith("SHA256:")), "of no fingerprint")
    if "incorrect signature" in words:
        raise SignatureError("was changed after it was signed", where=MANIFEST, hint=_AGAIN)
    if "namespace" in words:
        message = f"was signed for something else than a bundle (its namespace is not {NAMESPACE})"
        raise SignatureError(message, where=MANIFEST, hint=_AGAIN)
    raise SignatureError(f"is no signature that can be checked: {words}", where=SIGNATURE, hint=_AGAIN)


def _principals(path: str, key: str, signers: Signers) -> list[str]:
    answer = _ssh_keygen(["-Y", "find-principals", "-s", path, "-f", str(signers.allowed.resolve())], b"")
    names = answer.stdout.decode(errors="replace").split("\n")
    if answer.returncode or not any(names):
        raise SignatureError(
            f"was signed with the key {key}, which nobody has of those who may sign: {_words(answer)}",
            where=MANIFEST,
            hint=f"if you trust this key, {signers.allowed} needs a line of it (and the clock here be right)",
        )
    return [name for name in names if name]


def _refusal(content: bytes, path: str, name: str, signers: Signers) -> str:
    """Tell why it is not a signature of this principal; empty where it is one."""
    arguments = [
        "-Y",
        "verify",
        "-n",
        NAMESPACE,
        "-s",
        path,
        "-I",
        name,
        "-f",
        str(signers.allowed.resolve()),
    ]
    answer = _ssh_keygen(arguments, content)
    if not answer.returncode and signers.revoked is not None:
        answer = _ssh_keygen([*arguments, "-r", str(signers.revoked.resolve())], content)
        return "it is revoked" if answer.returncode else ""
    return _words(answer) if answer.returncode else ""


def _ssh_keygen(arguments: list[str], content: bytes | None) -> subprocess.CompletedProcess[bytes]:
    program = shutil.which("ssh-keygen")
    if program is None:
        hint = "install OpenSSH's client, 8.2 or later; nothing else of it is used"
        raise InputError("signatures need ssh-keygen, which is not installed", hint=hint)
    environment = {**os.environ, "LC_ALL": "C"}
    # Without bytes to give it, it may ask for a passphrase: it has the terminal then.
    stdin = {"input": content} if content is not None else {}
    answer = subprocess.run([program, *arguments], capture_output=True, env=environment, check=False, **stdin)  # type: ignore[call-overload]
    if b"nknown option" in answer.stderr or b"llegal option" in answer.stderr:
        raise InputError("ssh-keygen is too old for signatures", where=program, hint="OpenSSH 8.2 has them")
    return answer  # type: ignore[no-any-return]


def _words(answer: subprocess.CompletedProcess[bytes]) -> str:
    """What ssh-keygen said, as one harmless line."""
    text = (answer.stderr + b"\n" + answer.stdout).decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip(" @\r")]
    return "; ".join("".join(sign if sign.isprintable() else "?" for sign in line) for line in lines)[:500]
