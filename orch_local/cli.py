"""The command line. Heavy modules are imported inside the commands, so that ``--help`` comes at once."""

from __future__ import annotations

import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from orch_local.errors import InputError, OrchError

if TYPE_CHECKING:
    from rich.console import Console

    from orch_local.pipeline import Result
    from orch_local.sessions import Display, StopRequest
    from orch_local.store import RunFolder

app = typer.Typer(
    name="orch-local",
    help="Many analyses, one merge: several local models answer, a merge agent decides. Everything offline.",
    no_args_is_help=True,
    rich_markup_mode=None,  # loading rich's help pages takes half of the time of --help
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Folder = Annotated[Path, typer.Argument(help="Folder of a run.")]
RunFile = Annotated[Path, typer.Argument(help="The run file (YAML); `orch-local schema` describes it.")]
Out = Annotated[Path | None, typer.Option("--out", help="Run folder. [default: runs/NAME-OF-RUN-FILE]")]
StoreOption = Annotated[
    Path | None, typer.Option("--store", help="Where rows are kept. [default: beside the run]")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Ask the first N questions only.")]
Categories = Annotated[str | None, typer.Option(help="Ask these categories only, separated by commas.")]
Split = Annotated[str | None, typer.Option(help="Split of the benchmark.")]
Shuffle = Annotated[int | None, typer.Option("--shuffle-seed", min=0, help="Fixed shuffle of the questions.")]
SkipBadRows = Annotated[bool, typer.Option("--skip-bad-rows", help="Record and count bad rows, do not stop.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Generate rows again that failed before.")]
Fast = Annotated[
    bool, typer.Option("--fast", help="Give the promise of equal bytes up for speed (docs/determinism.md).")
]
NewEnvironment = Annotated[
    bool,
    typer.Option(
        "--accept-new-environment",
        help="Continue with other libraries or on another device: all rows are generated anew.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the result only.")]


class InterruptedRunError(OrchError):
    """The user, or the batch system, stopped the run by a signal."""

    def __init__(self, signum: int, again: str) -> None:
        super().__init__("stopped; finished rows are kept", hint=again)
        self.exit_code = 128 + signum


@app.command()
def run(
    run_file: RunFile,
    out: Out = None,
    store: StoreOption = None,
    limit: Limit = None,
    categories: Categories = None,
    split: Split = None,
    shuffle_seed: Shuffle = None,
    skip_bad_rows: SkipBadRows = False,
    retry_failed: RetryFailed = False,
    fast: Fast = False,
    accept_new_environment: NewEnvironment = False,
    quiet: Quiet = False,
) -> None:
    """Run, or continue, what a run file describes."""
    from orch_local.config import load_run
    from orch_local.pipeline import prepare
    from orch_local.report.outline import print_obstacles

    given = _given(categories, skip_bad_rows, fast, limit=limit, split=split, shuffle_seed=shuffle_seed)
    folder = _run_folder(out or Path("runs") / run_file.stem)
    store = (store or folder.root.parent / "store").absolute()
    planned = prepare(load_run(run_file, given), folder, store, accept_new_environment)
    if not quiet:
        print_obstacles(_console(stderr=True), planned)
    _finish(folder, retry_failed=retry_failed, quiet=quiet)


@app.command()
def plan(
    run_file: RunFile,
    limit: Limit = None,
    categories: Categories = None,
    split: Split = None,
    shuffle_seed: Shuffle = None,
    skip_bad_rows: SkipBadRows = False,
    fast: Fast = False,
    prompts: Annotated[
        bool, typer.Option("--prompts", help="Print the first prompt of every agent.")
    ] = False,
    machine: Annotated[
        str | None, typer.Option(help="Place on other GPUs than here, e.g. 4x80GiB or 8xH100:80GiB.")
    ] = None,
) -> None:
    """Check a run file, show what it needs and what would run where; loads no model."""
    from orch_local.config import load_run
    from orch_local.planning import check, draft, elsewhere, outline, read_machine
    from orch_local.report.outline import print_outline

    given = _given(categories, skip_bad_rows, fast, limit=limit, split=split, shuffle_seed=shuffle_seed)
    there = read_machine(machine) if machine else None
    drafted = draft(load_run(run_file, given), Path("store").absolute())
    drafted = elsewhere(drafted, there) if there else drafted
    check(drafted.plan, drafted.questions, there)
    print_outline(_console(), outline(drafted, there), prompts=prompts)


@app.command()
def show(
    run_folder: Folder,
    question_id: Annotated[
        str | None, typer.Argument(help="Id of a question, or the beginning of one.")
    ] = None,
    timeline: Annotated[
        bool, typer.Option("--timeline", help="When each model loaded and generated, against the plan.")
    ] = False,
) -> None:
    """Print one question's whole story, or the timeline of the run."""
    from orch_local.report.story import print_story
    from orch_local.report.timeline import print_timelines
    from orch_local.showing import executions, story

    folder = _run_folder(run_folder)
    if timeline == (question_id is not None):
        raise InputError(
            "show needs the id of a question or --timeline, and not both",
            hint=f"`orch-local show {_short(folder.root)} --timeline`, or an id from questions.jsonl",
        )
    if question_id is None:
        print_timelines(_console(), executions(folder))
    else:
        print_story(_console(), *story(folder, question_id))


@app.command()
def verify(
    run_folder: Folder,
    sample: Annotated[int, typer.Option(min=0, help="Rows of each agent to generate again.")] = 32,
    every: Annotated[bool, typer.Option("--all", help="Generate all rows again.")] = False,
    quiet: Quiet = False,
) -> None:
    """Check a run's files, generate rows again in other batches, compare bytes. Code 1 on a difference."""
    from orch_local.levels import state
    from orch_local.plans import load_plan
    from orch_local.report.proof import print_verification
    from orch_local.verifying import verify as verify_run

    folder = _run_folder(run_folder)
    load_plan(folder)  # what is no run must not get a log
    with _watched(folder, quiet=quiet, again="nothing of the run was changed; verify it again") as watched:
        display, stop = watched
        found = verify_run(folder, None if every else sample, display, stop)
    print_verification(_console(), found, state(folder, found.plan, found.unused))
    raise typer.Exit(0 if found.passed else 1)


@app.command()
def replay(run_folder: Folder) -> None:
    """Recompute every decision from the stored rows, without an engine. Code 1 on a difference."""
    from orch_local.replaying import replay as replay_run
    from orch_local.report.proof import print_replay

    found = replay_run(_run_folder(run_folder))
    print_replay(_console(), found)
    raise typer.Exit(0 if found.same else 1)


@app.command()
def diff(
    run_a: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    run_b: Annotated[Path, typer.Argument(help="Folder of another.")],
    examples: Annotated[int, typer.Option(min=0, help="Differing questions to show.")] = 5,
) -> None:
    """Say what differs between two runs: plans, then answers. Code 1 where the digests differ."""
    from orch_local.comparing import compare
    from orch_local.report.difference import print_difference

    found = compare(_run_folder(run_a), _run_folder(run_b), examples)
    print_difference(_console(), found)
    raise typer.Exit(0 if found.same_digest else 1)


@app.command()
def submit(
    run_file: RunFile,
    out: Out = None,
    store: StoreOption = None,
    shards: Annotated[
        int | None,
        typer.Option(
            min=1, help="Parts of the questions, one job each, at most 100,000. [default: as before, or 1]"
        ),
    ] = None,
    limit: Limit = None,
    categories: Categories = None,
    split: Split = None,
    shuffle_seed: Shuffle = None,
    skip_bad_rows: SkipBadRows = False,
    retry_failed: RetryFailed = False,
    fast: Fast = False,
    accept_new_environment: NewEnvironment = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the scripts; write and submit nothing.")
    ] = False,
) -> None:
    """Submit a run to SLURM; again: just what is missing (docs/slurm.md)."""
    from orch_local.config import load_run
    from orch_local.report.status import print_submission, print_submitting
    from orch_local.slurm import submitting
    from orch_local.slurm.scripts import Scripts

    given = _given(categories, skip_bad_rows, fast, limit=limit, split=split, shuffle_seed=shuffle_seed)
    folder = _run_folder(out or Path("runs") / run_file.stem)
    store = (store or folder.root.parent / "store").absolute()
    config = load_run(run_file, given)
    submitting.check(config)
    parts = shards or submitting.shards_before(folder)
    scripts = Scripts(folder, store, config.slurm, parts, accept_new_environment, retry_failed)
    composed = submitting.compose(scripts, config)
    if dry_run:
        print_submitting(_console(), composed, folder)
        return
    print_submission(_console(), submitting.submit(scripts, composed), _short(folder.root))


@app.command()
def status(
    run_folder: Folder,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how far a run is. Code 0: finished and scored; 1: failed or stopped; 3: not finished yet."""
    from orch_local.report.status import print_status, print_status_json
    from orch_local.slurm.submitting import look

    found = look(_run_folder(run_folder))
    if json:
        print_status_json(found)
    else:
        print_status(_console(), found, _short(run_folder.absolute()))
    raise typer.Exit(found.exit_code)


@app.command()
def prepare(
    run_file: RunFile,
    out: Annotated[Path, typer.Option("--out", help="Run folder.")],
    store: Annotated[Path, typer.Option("--store", help="Where rows are kept.")],
    accept_new_environment: NewEnvironment = False,
) -> None:
    """Make the plan of a run, or check the one there is: the first job of `submit`."""
    from orch_local.config import load_run
    from orch_local.pipeline import prepare as prepare_run
    from orch_local.report.outline import print_obstacles
    from orch_local.report.terminal import counted
    from orch_local.slurm.task import Job

    folder = _run_folder(out)
    with Job.here(folder, "plan").recorded():
        planned = prepare_run(load_run(run_file), folder, store.absolute(), accept_new_environment)
    print_obstacles(_console(stderr=True), planned)
    print(f"planned: {counted(planned.questions.count, 'question')}, {counted(len(planned.agents), 'agent')}")


@app.command()
def shard(
    run_folder: Folder,
    part: Annotated[str, typer.Argument(metavar="SHARD", help="Such as 3/8: the third of eight.")],
    attempts: Annotated[int, typer.Option(min=1, help="So often may SLURM start it.")] = 10,
    stage_to: Annotated[
        str | None, typer.Option("--stage-to", help="Copy the weights to this local folder first.")
    ] = None,
    retry_failed: RetryFailed = False,
) -> None:
    """Generate the rows of one shard: an array task of `submit`, or by hand."""
    # Imports take a second, and a signal that comes meanwhile is to be heeded behind them, not to kill.
    with _held(signal.SIGTERM, signal.SIGUSR1) as release:
        from orch_local.pipeline import work
        from orch_local.plans import load_plan
        from orch_local.shards import Shard
        from orch_local.slurm.task import Job, run_shard
        from orch_local.staging import expanded

        folder, mine = _run_folder(run_folder), Shard.parse(part)
        load_plan(folder)  # what is no run must not get files
        again = "`orch-local status` tells what is left"
        with _watched(folder, quiet=True, again=again, log=False) as (display, stop):

            def go() -> None:
                release()
                local = expanded(stage_to) if stage_to else None
                work(folder, display, mine, retry_failed=retry_failed, stop=stop, stage_to=local)

            run_shard(Job.here(folder, mine.name), attempts, go)
    print(f"shard {mine}: all rows are there")


@app.command()
def score(run_folder: Folder, quiet: Quiet = False) -> None:
    """Decide and score from the stored rows; loads no model. The last job of `submit`."""
    from orch_local.pipeline import score as score_run
    from orch_local.plans import load_plan
    from orch_local.slurm.task import Job

    folder = _run_folder(run_folder)
    load_plan(folder)
    with Job.here(folder, "score").recorded(), _watched(folder, quiet=quiet):
        result = score_run(folder)
    _print_result(result, folder)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder of the demo.")] = Path("runs/demo"),
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Number of held-out questions.")] = 1000,
    engine: Annotated[Literal["vllm", "transformers"], typer.Option(help="What runs the models.")] = "vllm",
    quiet: Quiet = False,
) -> None:
    """Run four tiny trained models on a synthetic benchmark."""
    from orch_local.config import load_run
    from orch_local.demo import EXPLANATION, RUN_FILE, demo_overrides
    from orch_local.pipeline import prepare
    from orch_local.questions import read_questions
    from orch_local.report.terminal import print_paragraph
    from orch_local.store import RunFolder

    folder = RunFolder(out.absolute())
    config = load_run(RUN_FILE, demo_overrides(folder.root, limit, engine))
    prepare(config, folder, folder.root.parent / "store")
    console = _console()
    if not quiet:
        for paragraph in EXPLANATION:
            print_paragraph(console, paragraph)
    _finish(folder, retry_failed=False, quiet=quiet)
    if not quiet:
        first = read_questions(folder.questions)[0].id
        console.print(
            f"\nOne question's story: orch-local show {_short(out)} {first}", markup=False, soft_wrap=True
        )
        console.print(f"The run file:         {_short(RUN_FILE)}", markup=False, soft_wrap=True)


@app.command()
def models(
    names: Annotated[list[str] | None, typer.Argument(help="Check these models; none lists all.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="Write the built-in prompt templates here.")] = None,
) -> None:
    """List the model configs, or check the folders of some of them."""
    from orch_local.report.models import print_check, print_models, write_templates

    if prompts is not None:
        write_templates(_console(), prompts)
    elif names:
        print_check(_console(), names)
    else:
        print_models(_console())


@app.command()
def schema() -> None:
    """Print the JSON schema of run files, for editors."""
    import json

    from orch_local.config import RunConfig

    print(json.dumps(RunConfig.model_json_schema(), indent=2))


def _given(
    categories: str | None, skip_bad_rows: bool, fast: bool, **benchmark: int | str | None
) -> dict[str, Any]:
    """The options of the command line that were given, by the key of the run file that they stand for."""
    values: dict[str, Any] = {f"benchmark.{name}": value for name, value in benchmark.items()}
    values["benchmark.categories"] = [name.strip() for name in categories.split(",")] if categories else None
    values["benchmark.skip_bad_rows"] = skip_bad_rows or None
    values["engine.fast"] = fast or None
    return {name: value for name, value in values.items() if value is not None}


def _finish(folder: RunFolder, *, retry_failed: bool, quiet: bool) -> Result:
    """Execute a prepared run with progress, and print its result."""
    from orch_local.pipeline import execute

    with _watched(folder, quiet=quiet) as (display, stop):
        result = execute(folder, display, retry_failed, stop)
    _print_result(result, folder)
    return result


def _print_result(result: Result, folder: RunFolder) -> None:
    from orch_local.report.proof import print_standing
    from orch_local.report.terminal import print_metrics, print_warnings

    console = _console()
    print_metrics(console, result.metrics, result.costs, digest=result.digest, run_dir=folder.root)
    print_standing(console, result.standing)
    counts = result.plan.questions.bad_rows, result.violations, result.damaged
    print_warnings(console, *counts, result.deaths)


@contextmanager
def _held(*signals: signal.Signals) -> Iterator[Callable[[], object]]:
    """Let these signals wait until the block ends, or calls what it is given."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield lambda: signal.pthread_sigmask(signal.SIG_SETMASK, before)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _watched(
    folder: RunFolder,
    *,
    quiet: bool,
    again: str = "run the same command again to continue",
    log: bool = True,
) -> Iterator[tuple[Display, StopRequest]]:
    """Show progress, write the log (or standard error), and turn signals into an orderly end."""
    import logging

    from orch_local.report.progress import display_for
    from orch_local.signals import stopping_by_signals

    # Progress is no part of the result: `orch-local run ... > result.txt` holds the result alone.
    aside = _console(stderr=True)
    _log_to(folder.log if log else None)

    def say(text: str) -> None:
        aside.print(text, markup=False, soft_wrap=True)

    try:
        with display_for(aside, quiet=quiet) as display, stopping_by_signals(say) as stop:
            yield display, stop
    except KeyboardInterrupt as interrupt:
        signum = getattr(interrupt, "signum", signal.SIGINT)
        if log:  # a shard says by itself what stopped it, and why
            logging.getLogger(__name__).warning("stopped by %s", signal.Signals(signum).name)
        raise InterruptedRunError(signum, again) from None


def _log_to(file: Path | None) -> None:
    import logging

    try:
        handler: logging.Handler = (
            logging.FileHandler(file, encoding="utf-8") if file else logging.StreamHandler()
        )
    except OSError:
        handler = logging.NullHandler()  # the folder of an archived run may be read-only
    layout = "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(handlers=[handler], level=logging.INFO, format=layout, force=True)


def _run_folder(path: Path) -> RunFolder:
    from orch_local.store import RunFolder

    if path.is_file():
        raise InputError("is a file, not the folder of a run", where=str(path))
    return RunFolder(path.absolute())


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(highlight=False, stderr=stderr)


def _short(path: Path) -> Path:
    """The path as the user would type it."""
    absolute = path.absolute()
    return absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute


def main() -> NoReturn:
    """Entry point: errors of ours become one message and an exit code, never a traceback."""
    # Scoring a run of many shards goes faster the more files it may hold open.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # A terminal that cannot show a character gets its number, not an error at the end of a run.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        app()
    except OrchError as error:
        message = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in str(error))
        print(f"error: {message}", file=sys.stderr)
        sys.exit(error.exit_code)
    sys.exit(0)
