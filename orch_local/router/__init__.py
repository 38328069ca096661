"""The router: EMA state, ranking rules, feedback, routes. Pure."""

__all__ = [
    "averages",
    "feedback",
    "routes",
    "routing",
    "states",
]
