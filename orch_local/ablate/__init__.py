"""What a run would have come to with other agents, other rules or a router: over its frozen panel.

``frozen`` reads the panel once; ``votes`` and ``routers`` decide it anew without an engine; ``variants`` are
run folders over the same store for what only the merge agent can tell; ``orders`` audits what the order of
the agents does to it; ``scores`` turns all into rows with their uncertainty; ``study`` puts it together.
"""

__all__ = [
    "frozen",
    "missing",
    "orders",
    "routers",
    "scores",
    "study",
    "variants",
    "votes",
]
