"""The `Engine` protocol and its implementations. Each engine module alone imports its library."""

__all__ = [
    "base",
    "catalogue",
    "fake_table",
    "registry",
    "self_test",
    "traits",
]
