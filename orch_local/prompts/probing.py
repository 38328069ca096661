"""A tokenizer tried out before it is used: parsed and run on hard texts in a child process with bounds.

A `tokenizer.json` is a program of a kind. Its patterns can backtrack for a long time, its replacements can
double a text forty times over, and the library that runs it cannot be interrupted from Python. What hangs or
grows on the texts below does so there, and is refused here. A pattern made to hang on one rare text alone
passes: that costs its worker the time limit of `engine.stall_timeout_s`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import AddedToken

from orch_local.errors import ModelError, PromptError
from orch_local.prompts.confined import Child, ChildKind, LimitError

SECONDS = 20.0
"""For reading the file, and as much again for all texts: the largest in use take 1 s and nearly nothing."""
MEMORY_BYTES = 8 * 2**30

_KIND = ChildKind("tokenizer", ("tokenizers",), MEMORY_BYTES, SECONDS)
_LETTERS = "aZ0 \n\t-._\"'<é中\u2581"
TEXTS = (
    *(letter * count + end for letter in _LETTERS for count in (24, 60, 2000) for end in ("", "!")),
    *((pair * 1000) + "!" for pair in ("ab", "a ", "a1", "\n ", "'s", "Aa")),
    'The quick brown fox, aged 42, said: "it\'s <b>fine</b>!"\n\n' * 40,
)

_passed: set[bytes] = set()


def probe(serialised: str, added: Sequence[AddedToken], texts: Sequence[str], where: Path) -> None:
    """Try a tokenizer; one that passed is not tried again by this process.

    Parameters
    ----------
    added:
        Tokens that are added to it.
    texts:
        What it is tried on besides the texts above: our own, which the maker of a tokenizer could know.

    Raises
    ------
    ModelError
        If it takes too long, needs too much memory or takes the process down. Whether it is a tokenizer at
        all is for the caller to find out.
    """
    content = serialised.encode()
    tokens = [token.__getstate__() for token in added]
    job = {"added": tokens, "texts": [*TEXTS, *texts, *(token.content for token in added)]}
    key = hashlib.sha256(content + json.dumps(job).encode()).digest()
    if key in _passed:
        return
    child = Child(_KIND)
    try:
        child.ask({"bytes": len(content), **job}, content)
    except LimitError as error:
        raise ModelError(
            f"the tokenizer {error}",
            where=str(where),
            hint="no honest tokenizer does that: fetch the model's folder again, from where you trust it",
        ) from None
    except PromptError:
        return
    finally:
        child.close()
    _passed.add(key)
