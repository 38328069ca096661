"""Bundles: all that a machine without a network needs, in one folder, checked before anything of it is used.

Layout of a bundle::

    manifest.json        what it is for and what it holds: every file with its size and SHA-256
    manifest.json.sig    the manifest's ssh signature, where it was signed
    install.pyz          installs the bundle with nothing but Python; also one of the files of the manifest
    wheels/ models/ benchmarks/ run-files/ sbom.cdx.json ...       the files, or instead of them
    part-00001 part-00002 ...                                      the files one behind the other, cut

There is no archive to unpack: the parts are the bytes of the files in the order of the manifest, so a path
can only come from the manifest, and each path of it is checked.

`install.pyz` holds the modules that `standalone.py` lists. They import the standard library,
`orch_local.errors` and `orch_local.util.paths` alone.
"""

__all__ = [
    "arguments",
    "checking",
    "completeness",
    "contents",
    "creating",
    "describing",
    "environment",
    "inside",
    "installing",
    "manifest",
    "parts",
    "pins",
    "placing",
    "platforms",
    "receiving",
    "run_files",
    "sbom",
    "signature",
    "sizes",
    "standalone",
    "target",
    "wheels",
    "zipping",
]
