"""The vLLM engine; nothing outside of this package knows vLLM.

vLLM is imported inside functions, so that the parent process can ask for everything but the engine itself
without loading it.
"""

from orch_local.engines.vllm.arguments import step_tokens
from orch_local.engines.vllm.engine import VllmEngine
from orch_local.engines.vllm.facts import determinism, environment, libraries, version
from orch_local.engines.vllm.invariance import obstacles
from orch_local.engines.vllm.loading import warm_up

__all__ = [
    "VllmEngine",
    "determinism",
    "environment",
    "libraries",
    "obstacles",
    "step_tokens",
    "version",
    "warm_up",
]
