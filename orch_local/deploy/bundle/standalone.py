"""The entry point of ``install.pyz``: inspect, verify and install a bundle with nothing but Python.

This file alone is read by a Python that is too old for the others: nothing in it may be newer than that.
"""

import sys

MODULES = (
    "arguments",
    "checking",
    "describing",
    "environment",
    "inside",
    "installing",
    "manifest",
    "parts",
    "placing",
    "receiving",
    "signature",
    "standalone",
    "target",
)
"""What lies of this package in ``install.pyz``."""

SHARED = (
    "__init__.py",
    "errors.py",
    "deploy/__init__.py",
    "deploy/bundle/__init__.py",
    "util/__init__.py",
    "util/paths.py",
)
"""What else lies there."""


def main():  # type: ignore[no-untyped-def]  # an annotation of this one, NoReturn, is newer than Python 3.5
    """Run the command line; ends the process."""
    if sys.version_info < (3, 11):  # noqa: UP036  # there is no pip in between that would refuse it
        found = ".".join(str(number) for number in sys.version_info[:3])
        sys.exit(
            "error: install.pyz needs Python 3.11 or later, and this is " + found + "\n"
            "hint: start it with another one, such as python3.12 install.pyz; the environment is made from it"
        )
    from orch_local.deploy.bundle.arguments import run

    run()
