"""The model configs on the terminal: which are known, and whether their folders can be used."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.text import Text

from orch_local.config.model_configs import ModelConfig, load_model_config, model_config_files
from orch_local.config.model_search import model_folders
from orch_local.errors import InputError, ModelError, OrchError
from orch_local.models.folders import open_model_folder
from orch_local.prompts.template import builtin_names, builtin_text
from orch_local.prompts.tokenizer import PromptTokenizer
from orch_local.report.console import print_paragraph, print_table, table
from orch_local.report.safe import safe
from orch_local.store.store import write_text


def print_models(console: Console) -> None:
    """List all model configs with what they need and whether their folder is there, and folders without one.

    Raises
    ------
    ConfigError
        If one of the files is not valid.
    """
    rows = table(console, "model", ["memory GiB", "context", "thinks", "level", "tested", "folder"])
    rows.columns[0].no_wrap = True  # a name is to be copied into a run file
    used: set[Path] = set()
    for name in model_config_files():
        try:
            config = load_model_config(name)
        except ModelError as error:
            rows.add_row(safe(name), *map(safe, ("-", "-", "", "", "", error.message)))
            continue
        used.add((config.path or Path()).resolve())
        memory = f"{config.memory_gib:.1f}" if config.memory_gib else "-"
        context = f"{config.max_model_len:,}" if config.max_model_len else "-"
        facts = (_thinks(config), config.best_level or "-", config.tested or "-")
        rows.add_row(safe(name), *map(safe, (memory, context, *facts, _state(config))))
    for name, folder in model_folders():
        if folder.resolve() not in used:
            rows.add_row(safe(name), *map(safe, ("-", "-", "", "-", "-", "found; no config, defaults")))
    print_table(console, "Models", rows)
    print_paragraph(
        console,
        "Memory is that of the weights. Level: what to expect on a GPU. Tested: whether vLLM lists this "
        "model, its architecture or a sibling as tested in its batch-invariant mode; we tried none of them. "
        "`orch-local plan` says what fits where.",
    )
    print_paragraph(
        console, "Set ORCH_MODELS_DIR to the folder that holds the models, or `path:` in a config."
    )


def print_check(console: Console, names: list[str]) -> None:
    """Check the folders of some models: files, safetensors headers, tokenizer and chat template.

    Raises
    ------
    InputError
        If any of them cannot be used; all are checked first.
    """
    broken = 0
    for name in names:
        try:
            folder = open_model_folder(load_model_config(name))
            tokenizer = PromptTokenizer(folder.path)
            size = f"{folder.weight_bytes / 2**30:.2f} GiB in {len(folder.weights)} files"
            verdict = f"ok: {folder.architecture}, {size}, end of sequence is token {tokenizer.eos_id}"
        except OrchError as error:
            verdict, broken = f"cannot be used: {error}", broken + 1
        console.print(Text.assemble(safe(name), " ", safe(verdict, newlines=True)), soft_wrap=True)
    if broken:
        raise InputError(f"{broken} of {len(names)} models cannot be used")


def write_templates(console: Console, folder: Path) -> None:
    """Write the built-in prompt templates into ``folder``; existing files are not touched.

    Raises
    ------
    InputError
        If a file of that name exists.
    """
    files = {name: folder / f"{name}.txt" for name in builtin_names()}
    for file in files.values():
        if file.exists():
            raise InputError(
                "exists already and is not overwritten", where=str(file), hint="choose an empty folder"
            )
    for name, file in files.items():
        write_text(file, builtin_text(name))
        console.print(safe(str(file)), soft_wrap=True)


def _thinks(config: ModelConfig) -> str:
    """Whether it writes a thought before its answer: where it is asked to, always, or never."""
    if not config.think_open:
        return "no"
    return "can" if config.thinking_template_kwargs else "always"


def _state(config: ModelConfig) -> str:
    return "found" if config.path is not None and config.path.is_dir() else "not here"
