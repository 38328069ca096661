"""Signatures of manifests: a good one names who signed, everything else is refused in words."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from paths import ROOT
from tiny_bundles import FILES, Key, make_bundle, make_key

from orch_local.deploy.bundle.checking import open_bundle, unchecked_key
from orch_local.deploy.bundle.manifest import ManifestError
from orch_local.deploy.bundle.signature import SignatureError, Signers, check, sign
from orch_local.errors import InputError, OrchError
from orch_local.util.paths import MANIFEST, SIGNATURE

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Key, Key]:
    """Of the one who signs, and of somebody else."""
    folder = tmp_path_factory.mktemp("keys")
    return make_key(folder, "carrier"), make_key(folder, "other")


@pytest.fixture
def manifest(tmp_path: Path, keys: tuple[Key, Key]) -> Path:
    """A signed manifest, of a bundle in parts."""
    make_bundle(tmp_path / "bundle", FILES, 1000)
    path = tmp_path / "bundle" / MANIFEST
    sign(path, keys[0].private)
    return path


def refused(manifest: Path, allowed: Path, identity: str | None = None, revoked: Path | None = None) -> str:
    """The error, as it is printed."""
    with pytest.raises(OrchError) as caught:
        check(manifest, allowed, identity, revoked)
    assert caught.value.hint
    return str(caught.value)


def with_options(key: Key, options: str) -> Path:
    """A list of allowed signers that says more about a key."""
    public = key.private.with_suffix(".pub").read_text(encoding="ascii")
    allowed = key.private.with_name("optional.allowed")
    allowed.write_text(f"carrier@site {options} {public}", encoding="ascii")
    return allowed


def test_a_good_signature_names_who_signed(manifest: Path, keys: tuple[Key, Key]) -> None:
    key = keys[0]
    assert check(manifest, key.allowed, None) == "carrier@site"
    assert check(manifest, key.allowed, "carrier@site") == "carrier@site"
    bundle = open_bundle(manifest.parent, Signers(key.allowed))
    assert bundle.signer == "carrier@site"
    listed = subprocess.run(
        ["ssh-keygen", "-l", "-f", key.private], capture_output=True, text=True, check=True
    )
    assert unchecked_key(bundle) == listed.stdout.split()[1]


def test_signing_again_replaces_the_signature(manifest: Path, keys: tuple[Key, Key]) -> None:
    sign(manifest, keys[1].private)
    assert check(manifest, keys[1].allowed, None) == "other@site"
    assert "nobody has of those who may sign" in refused(manifest, keys[0].allowed)


def test_one_changed_byte_is_found(manifest: Path, keys: tuple[Key, Key]) -> None:
    content = manifest.read_bytes()
    for index in (0, len(content) // 2, len(content) - 1):
        manifest.write_bytes(content[:index] + bytes([content[index] ^ 1]) + content[index + 1 :])
        assert "was changed after it was signed" in refused(manifest, keys[0].allowed)


def test_the_signature_is_checked_before_the_manifest_is_read(manifest: Path, keys: tuple[Key, Key]) -> None:
    manifest.write_bytes(b"no manifest at all")
    with pytest.raises(SignatureError, match="was changed after it was signed"):
        open_bundle(manifest.parent, Signers(keys[0].allowed))
    with pytest.raises(ManifestError):
        open_bundle(manifest.parent, None)


def test_a_signature_for_something_else_is_refused(manifest: Path, keys: tuple[Key, Key]) -> None:
    (manifest.parent / SIGNATURE).unlink()
    command = ["ssh-keygen", "-Y", "sign", "-n", "git", "-f", str(keys[0].private), str(manifest)]
    subprocess.run(command, check=True, capture_output=True)
    assert "was signed for something else" in refused(manifest, keys[0].allowed)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ('valid-before="20200101"', "expired"),
        ('valid-after="20990101"', "not yet valid"),
        ('namespaces="git"', "not permitted"),
        ("cert-authority", "nobody has"),
    ],
)
def test_a_key_that_does_not_count_now_is_refused(
    manifest: Path, keys: tuple[Key, Key], options: str, words: str
) -> None:
    assert words in refused(manifest, with_options(keys[0], options))
    assert "carrier@site" in refused(manifest, with_options(keys[0], options), "carrier@site")


def test_a_key_for_bundles_alone_is_good(manifest: Path, keys: tuple[Key, Key]) -> None:
    allowed = with_options(keys[0], 'namespaces="orch-local-bundle",valid-before="20990101"')
    assert check(manifest, allowed, None) == "carrier@site"


def test_a_revoked_key_is_refused(manifest: Path, keys: tuple[Key, Key], tmp_path: Path) -> None:
    revoked = tmp_path / "revoked"
    shutil.copy(keys[1].private.with_suffix(".pub"), revoked)
    assert check(manifest, keys[0].allowed, None, revoked) == "carrier@site"
    shutil.copy(keys[0].private.with_suffix(".pub"), revoked)
    assert "it is revoked" in refused(manifest, keys[0].allowed, None, revoked)
    assert "cannot be read" in refused_list(manifest, keys[0].allowed, tmp_path / "gone")


def refused_list(manifest: Path, allowed: Path, revoked: Path) -> str:
    """The error about a list that cannot be used."""
    with pytest.raises(InputError) as caught:
        check(manifest, allowed, None, revoked)
    return str(caught.value)


def test_another_identity_than_asked_for_is_refused(manifest: Path, keys: tuple[Key, Key]) -> None:
    both = keys[0].allowed.read_text() + keys[1].allowed.read_text()
    allowed = manifest.parent.parent / "both.allowed"
    allowed.write_text(both)
    assert check(manifest, allowed, None) == "carrier@site"
    assert "does not count as other@site" in refused(manifest, allowed, "other@site")
    assert "does not count as " in refused(manifest, allowed, "")


def test_no_signature_is_refused(manifest: Path, keys: tuple[Key, Key]) -> None:
    (manifest.parent / SIGNATURE).unlink()
    assert "is not signed" in refused(manifest, keys[0].allowed)
    with pytest.raises(SignatureError, match="is not signed"):
        open_bundle(manifest.parent, Signers(keys[0].allowed))


@pytest.mark.parametrize(
    "content", [b"", b"junk", b"-----BEGIN SSH SIGNATURE-----\n", os.urandom(5000), None]
)
def test_what_is_no_signature_is_refused(
    manifest: Path, keys: tuple[Key, Key], content: bytes | None
) -> None:
    signature = manifest.parent / SIGNATURE
    if content is None:
        content = signature.read_bytes()[:150]
    signature.write_bytes(content)
    printed = refused(manifest, keys[0].allowed)
    assert "is no signature that can be checked" in printed
    assert all(sign.isprintable() for sign in printed.replace("\n", ""))


def test_a_signature_that_is_a_pipe_a_link_or_endless_is_refused(
    manifest: Path, keys: tuple[Key, Key]
) -> None:
    signature = manifest.parent / SIGNATURE
    signature.rename(manifest.parent / "aside")
    signature.symlink_to("aside")
    assert "no plain file" in refused(manifest, keys[0].allowed)
    signature.unlink()
    os.mkfifo(signature)
    assert "no plain file" in refused(manifest, keys[0].allowed)
    signature.unlink()
    signature.write_bytes(b"-" * 100_000)
    assert "far too long" in refused(manifest, keys[0].allowed)


def test_a_list_that_came_with_the_bundle_is_refused(manifest: Path, keys: tuple[Key, Key]) -> None:
    shutil.copy(keys[0].allowed, manifest.parent / "allowed_signers")
    with pytest.raises(InputError, match="came with the bundle"):
        open_bundle(manifest.parent, Signers(manifest.parent / "allowed_signers"))


@pytest.mark.parametrize("content", ["", "\n\n", "# nobody\n", None])
def test_a_list_of_nobody_is_refused(manifest: Path, tmp_path: Path, content: str | None) -> None:
    allowed = tmp_path / "allowed"
    if content is not None:
        allowed.write_text(content)
    words = "cannot be read" if content is None else "names nobody"
    with pytest.raises(InputError, match=words):
        check(manifest, allowed, None)


def test_a_list_of_nonsense_is_refused(manifest: Path, tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.write_bytes(os.urandom(500) + b"\nx ssh-ed25519 AAAA\n\x1b[2J * *\n")
    printed = refused(manifest, allowed)
    assert all(sign.isprintable() for sign in printed.replace("\n", ""))


def test_without_ssh_keygen_the_error_names_it(
    manifest: Path, keys: tuple[Key, Key], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="need ssh-keygen"):
        check(manifest, keys[0].allowed, None)
    with pytest.raises(InputError, match="need ssh-keygen"):
        sign(manifest, keys[0].private)


def test_an_old_ssh_keygen_is_named(
    manifest: Path, keys: tuple[Key, Key], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "ssh-keygen"
    program.write_text("#!/bin/sh\necho 'unknown option -- Y' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(InputError, match="too old"):
        check(manifest, keys[0].allowed, None)


def test_a_key_that_cannot_sign_is_an_error_and_leaves_no_signature(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    locked = make_key(tmp_path, "locked", passphrase="not told")
    _assert_cannot_sign(manifest, locked.private, "cannot sign")
    junk = tmp_path / "junk"
    junk.write_text("no key\n")
    _assert_cannot_sign(manifest, junk, "cannot sign")
    _assert_cannot_sign(manifest, tmp_path / "gone", "no such key")


def _assert_cannot_sign(manifest: Path, key: Path, words: str) -> None:
    with pytest.raises(OrchError, match=words) as caught:
        sign(manifest, key)
    assert caught.value.hint
    assert not (manifest.parent / SIGNATURE).exists() or words == "no such key"


@pytest.mark.skipif(
    not all(map(shutil.which, ("bash", "sed", "sha256sum"))), reason="needs bash, sed, sha256sum"
)
def test_the_commands_of_the_page_find_a_false_installer(tmp_path: Path) -> None:
    """Those of docs/airgap.md that check `install.pyz` before it is run, as they stand there."""
    page = (ROOT / "docs" / "airgap.md").read_text(encoding="utf-8")
    block = page.partition("## 5. ")[2].partition("```console\n")[2].partition("```")[0]
    by_hand = block.replace("inside$ ", "").partition("python3.12 ")[0]
    key = make_key(tmp_path, "carrier")
    allowed = tmp_path / "allowed_signers"
    allowed.write_text(key.allowed.read_text().replace("carrier@site", "carrier@example.org"))
    bundle = tmp_path / "bundle"
    make_bundle(bundle, {**FILES, "install.pyz": b"program"}, 1000)
    (bundle / "install.pyz").write_bytes(b"program")
    sign(bundle / MANIFEST, key.private)
    command = ["bash", "-e", "-o", "pipefail", "-c", by_hand]
    environ = {**os.environ, "HOME": str(tmp_path), "LC_ALL": "C"}

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=bundle, env=environ, capture_output=True, text=True, check=False)

    good = run()
    assert 'Good "orch-local-bundle" signature for carrier@example.org' in good.stdout, good.stderr
    assert good.returncode == 0 and "install.pyz: OK" in good.stdout
    (bundle / "install.pyz").write_bytes(b"Program")
    assert run().returncode and "install.pyz: FAILED" in run().stdout
    (bundle / MANIFEST).write_bytes((bundle / MANIFEST).read_bytes() + b" ")
    assert run().returncode and "Good" not in run().stdout


def test_names_of_keys_and_files_are_never_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    key = make_key(tmp_path, "plain")
    odd = tmp_path / "-Y; touch hacked; $(touch hacked)"
    key.private.rename(odd)
    key.private.with_suffix(".pub").rename(odd.with_name(odd.name + ".pub"))
    make_bundle(tmp_path / "-n x", FILES, 1000)
    sign(Path("-n x", MANIFEST), Path(odd.name))
    assert check(Path("-n x", MANIFEST), key.allowed, None) == "plain@site"
    assert not (tmp_path / "hacked").exists()
