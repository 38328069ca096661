"""Two small finished runs to compare: plans without models, decisions from letters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from orch_local.config.blocks import AnswerConfig
from orch_local.config.model_configs import ModelConfig
from orch_local.config.run_files import RunConfig
from orch_local.engines.base import EngineSettings
from orch_local.plan.files import write_plan
from orch_local.plan.plans import AgentPlan, Plan, QuestionsPlan
from orch_local.records import Decision, How, Level, LevelAssessment
from orch_local.results.diagnostics import Diagnostics
from orch_local.results.files import write_decisions, write_metrics
from orch_local.results.scoring import score
from orch_local.store.store import RunFolder, Spec

AGENTS = ("quant", "chrono")


def decision(number: int, letters: str, gold: str | None = "A", **changes: Any) -> Decision:
    """A decision from a letter for each agent and, last, the final answer; ``-`` is an invalid answer."""
    answers: list[str | None] = [None if letter == "-" else letter for letter in letters]
    names = AGENTS if len(letters) == 3 else tuple(f"agent{n}" for n in range(len(letters) - 1))
    values: dict[str, Any] = {
        "question_id": f"{number:016x}",
        "category": "calendar",
        "gold": gold,
        "answers": dict(zip(names, answers, strict=False)),
        "confidences": dict.fromkeys(names, 70),
        "outcomes": {name: "ok" if a else "invalid" for name, a in zip(names, answers, strict=False)},
        "answer": answers[-1],
        "how": How.MERGE if answers[-1] else How.UNSCORED,
        "reason": "" if answers[-1] else "merge invalid",
        "majority": answers[0],
    }
    return Decision(**(values | changes))


def agent(
    name: str, content: Mapping[str, Any], kind: Literal["analysis", "merge"] = "analysis"
) -> AgentPlan:
    """An agent whose spec has ``content``."""
    spec = Spec.of({"format": 1, "kind": kind, "name of the model": name, **content})
    settings = EngineSettings(
        name="vllm",
        model_path=Path("/models") / name,
        device="cpu",
        grammar="guidance",
        dtype="float32",
        max_model_len=1024,
        args={"cpu_kv_cache_gib": 0.1, "tensor_parallel_size": 1, "pipeline_parallel_size": 1},
    )
    return AgentPlan(
        name=name,
        kind=kind,
        model=ModelConfig(name=name),
        settings=settings,
        template="[user]\n{{ question }}\n",
        answer=AnswerConfig(),
        thinking=None,
        max_tokens=None,
        spec=spec.digest,
        spec_content=dict(spec.content),
    )


def plan(
    agents: Sequence[AgentPlan],
    merger: AgentPlan | None = None,
    count: int = 3,
    questions: str = "q" * 64,
    few_shot: int = 0,
    **rules: str,
) -> Plan:
    """A plan of these agents; ``rules`` are settings of its merge block."""
    merge = {"policy": "agent" if merger else "majority", "model": "merge" if merger else None, **rules}
    names = [{"name": one.name, "model": one.name} for one in agents]
    benchmark = {"name": "jsonl", "path": "/questions.jsonl", "few_shot": few_shot}
    return Plan(
        version="0",
        config=RunConfig.model_validate({"benchmark": benchmark, "agents": names, "merge": merge}),
        agents=tuple(agents),
        merger=merger,
        questions=QuestionsPlan(count=count, bad_rows=0, digest=questions),
        store=Path("/store"),
        environment={},
    )


def usual_plan(count: int, content: Mapping[str, Any] | None = None, **more: Any) -> Plan:
    """A plan of the usual agents and a merge agent, all with ``content`` in their specs."""
    agents = [agent(name, content or {}) for name in AGENTS]
    return plan(agents, agent("merge", content or {}, "merge"), count=count, **more)


def finished(folder: Path, made: Plan, decisions: Iterable[Decision], digest: str = "d" * 64) -> RunFolder:
    """Write the files of a finished run that a comparison reads."""
    run = RunFolder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_plan(run, made)
    write_results(run, made, list(decisions), digest)
    return run


def write_results(
    run: RunFolder,
    made: Plan,
    decisions: Sequence[Decision],
    digest: str,
    diagnostics: Diagnostics | None = None,
) -> None:
    """Write decisions and metrics by the functions that end a run."""
    write_decisions(run.root, decisions, made.names)
    standing = LevelAssessment(Level.RULES, 0, 0, ())
    write_metrics(run.root, score(decisions, made.names), {}, digest, standing, diagnostics)


def write_lines(run: RunFolder, lines: Iterable[str]) -> None:
    """Write ``decisions.jsonl``."""
    run.decisions.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def rewrite(run: RunFolder, line: int, text: str) -> None:
    """Put another text in place of one line (from 0) of ``decisions.jsonl``."""
    lines = run.decisions.read_text(encoding="utf-8").splitlines()
    lines[line] = text
    write_lines(run, lines)
