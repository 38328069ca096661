"""The section on how the agents answered, whatever is right."""

from __future__ import annotations

from markupsafe import Markup

from orch_local.report import findings
from orch_local.report.page.base import body
from orch_local.report.page.wording import name
from orch_local.results.diagnostics import Diagnostics
from orch_local.results.summary import Summary

MOST_AGENTS = 60


def answers(summary: Summary, found: Diagnostics) -> Markup:
    """What stands out, the figures of each agent, and the labels of its answers beside those of gold."""
    agents = list(found.agents.items())[:MOST_AGENTS]
    return body(
        "answers.html.j2",
        said=findings.findings(found, summary.policy, name).agents,
        explanation=findings.EXPLANATION,
        heads=findings.HEADS,
        figures=[(agent, findings.figures(one)) for agent, one in agents],
        labels=findings.labels(found),
        shares=findings.label_shares(found)[: MOST_AGENTS + 1],
        baseline=findings.baseline_sentence(found),
        left_out=len(found.agents) - len(agents),
    )
