"""How transformers loads a model: what is checked, and what a failure means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orch_local.engines.base import EngineSettings, one_line
from orch_local.engines.transformers.facts import INSTALL_HINT
from orch_local.errors import EngineError


def warm_up() -> None:
    """Import what loading a model takes."""
    import outlines_core  # noqa: F401
    import torch  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401


def load(settings: EngineSettings) -> tuple[Any, Any]:
    """Model and tokenizer from local files.

    Raises
    ------
    EngineError
        If a library or a file is missing, or weights are.
    """
    try:
        # To find it missing now, not at the first pattern.
        import outlines_core  # noqa: F401
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except Exception as error:
        message = f"the transformers engine cannot be imported: {one_line(error)}"
        raise EngineError(message, hint=hint_for(str(error), otherwise=INSTALL_HINT)) from error
    _check_settings(settings)
    safe = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(settings.model_path, **safe)
        model, report = AutoModelForCausalLM.from_pretrained(
            settings.model_path, dtype=settings.dtype, use_safetensors=True, output_loading_info=True, **safe
        )
        _check_loaded(settings, tokenizer, report)
        return model.to(settings.device).eval(), tokenizer
    except EngineError:
        raise
    except Exception as error:
        message = f"transformers cannot load the model: {one_line(error)}"
        raise EngineError(message, where=str(settings.model_path), hint=hint_for(str(error))) from error


def _check_settings(settings: EngineSettings) -> None:
    import torch

    if settings.device == "cuda" and not torch.cuda.is_available():
        raise EngineError("torch sees no GPU", hint="check nvidia-smi, or set `engine.device: cpu`")
    # Sums by atomic additions, as in `index_add_`, come out in another order each time; a CPU has none.
    torch.use_deterministic_algorithms(settings.device == "cuda" and not settings.fast, warn_only=True)
    one = {"quantization": None, "tensor_parallel_size": 1, "pipeline_parallel_size": 1}
    for key, plain in one.items():
        if settings.args.get(key, plain) not in (plain, None):
            raise EngineError(
                f"the transformers engine has no `{key}`", hint="take it out, or set `engine.name: vllm`"
            )


def _check_loaded(settings: EngineSettings, tokenizer: Any, report: Mapping[str, Any]) -> None:
    """Refuse what transformers only warns of: weights made up at random, a tokenizer that cannot be used."""
    absent = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if absent:
        raise EngineError(
            f"{len(absent)} weights are missing or of another shape, the first is {absent[0]}",
            where=str(settings.model_path),
            hint="the weights do not belong to this config.json: fetch the model again",
        )
    if not tokenizer.is_fast or tokenizer.eos_token_id is None:
        raise EngineError(
            "the tokenizer has no tokenizer.json or no end-of-sequence token",
            where=str(settings.model_path),
            hint="fetch the model again with all its tokenizer files",
        )


def end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Ids that end a generation: the tokenizer's, and those of generation_config.json, as in vLLM."""
    configured = model.generation_config.eos_token_id
    several = configured if isinstance(configured, list) else [configured]
    return frozenset(end for end in (tokenizer.eos_token_id, *several) if end is not None)


def greedy(tokenizer: Any) -> Any:
    """Plain greedy decoding; any id will do for padding, the mask hides it."""
    from transformers import GenerationConfig

    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    return GenerationConfig(do_sample=False, num_beams=1, use_cache=True, pad_token_id=pad)


_FILES_HINT = "the folder needs config.json, *.safetensors and tokenizer.json: fetch the model again"


def hint_for(message: str, otherwise: str = _FILES_HINT) -> str:
    """What to do about a failed load, by signs in its message."""
    lowered = message.lower()
    if "torchvision" in lowered:
        return "its build does not fit this torch: uninstall torchvision, torchaudio and torchcodec"
    if "out of memory" in lowered:
        return "the weights do not fit this device: choose a smaller model or a narrower dtype"
    if "trust_remote_code" in lowered or "does not recognize this architecture" in lowered:
        return "this transformers does not know the architecture, and code in a model folder is not run"
    return otherwise


def damaged(model: str) -> EngineError:
    return EngineError(
        "the model computes probabilities that are not numbers",
        where=model,
        hint="its weights are damaged, or overflow in this dtype: check them, or try bfloat16",
    )
