"""A measured profile on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from orch_local.plan.profiles import AgentProfile, Profile
from orch_local.report.console import print_paragraph, print_table, table
from orch_local.report.safe import safe, visible

_HEADS = ("rows", "load s", "base ms", "ms / 1k prompt", "ms / generated", "device-s / 1M")
_NOTE = (
    "A request alone takes base, and so much for its prompt and generated tokens; device-s = device-seconds "
    "of a million tokens, prompt and generated, in a full batch."
)


def print_profile(console: Console, profile: Profile) -> None:
    """Print what was measured of each agent, a line each."""
    made = table(console, "agent", (*_HEADS, "device"))
    for name, agent in profile.agents.items():
        made.add_row(safe(name), *map(Text, _cells(agent)), safe(_device(agent)))
    print_table(console, "Profile", made)
    print_paragraph(console, _NOTE, style="dim")
    print_paragraph(console, visible(f"Measured {profile.measured}."))


def _cells(agent: AgentProfile) -> list[str]:
    per_mille = (1e3 * agent.base_s, 1e6 * agent.prompt_s, 1e3 * agent.generated_s)
    return [
        f"{agent.rows:,}",
        f"{agent.load_s:,.1f}",
        *(f"{value:,.2f}" for value in per_mille),
        f"{1e6 * agent.device_s:,.1f}",
    ]


def _device(agent: AgentProfile) -> str:
    return f"{agent.devices} x {agent.device}" if agent.devices > 1 else agent.device
