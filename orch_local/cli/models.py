"""Commands about models and the form of a run file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orch_local.cli.options import console_of

if TYPE_CHECKING:
    pass


def models(
    names: Annotated[list[str] | None, typer.Argument(help="Check these models; none lists all.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="Write the built-in prompt templates here.")] = None,
) -> None:
    """List the model configs, or check the folders of some of them."""
    from orch_local.report.models import print_check, print_models, write_templates

    if prompts is not None:
        write_templates(console_of(), prompts)
    elif names:
        print_check(console_of(), names)
    else:
        print_models(console_of())


def schema() -> None:
    """Print the JSON schema of run files, for editors."""
    import json

    from orch_local.config.run_files import RunConfig

    print(json.dumps(RunConfig.model_json_schema(), indent=2))
