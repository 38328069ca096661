"""All commands, as one typer application."""

from __future__ import annotations

import typer

from orch_local.cli import bundle, doctor, evidence, fetch, models, report, router, run, slurm

COMMANDS = (
    run.run,
    run.plan,
    run.demo,
    evidence.show,
    evidence.verify,
    evidence.replay,
    evidence.diff,
    report.report,
    report.compare,
    report.ablate,
    report.export,
    report.power,
    router.profile,
    router.calibrate,
    slurm.submit,
    slurm.status,
    slurm.prepare,
    slurm.shard,
    slurm.score,
    doctor.doctor,
    fetch.fetch,
    models.models,
    models.schema,
)
"""In the order of the help."""

app = typer.Typer(
    name="orch-local",
    help="Many analyses, one merge: several local models answer, a merge agent decides. Everything offline.",
    no_args_is_help=True,
    rich_markup_mode=None,  # loading rich's help pages takes half of the time of --help
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in COMMANDS:
    app.command()(command)
app.add_typer(bundle.app)
