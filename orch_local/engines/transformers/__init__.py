"""The transformers engine, for machines without vLLM and for architectures that vLLM does not know.

torch and transformers are imported inside functions, so that the parent process can ask for everything but
the engine itself without loading them.
"""

from orch_local.engines.transformers.engine import TransformersEngine
from orch_local.engines.transformers.facts import determinism, environment, libraries, obstacles, version
from orch_local.engines.transformers.loading import warm_up

__all__ = [
    "TransformersEngine",
    "determinism",
    "environment",
    "libraries",
    "obstacles",
    "version",
    "warm_up",
]
