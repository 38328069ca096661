"""How a chat template takes the parts of a turn: our reading is that of vLLM."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from turn_templates import (
    BY_BOTH,
    BY_INDEX,
    BY_LOOP,
    BY_MACRO,
    BY_NAME,
    BY_OTHER_NAME,
    PLAIN,
    tokenizer,
)

READ_BY_VLLM = """
import json, sys
from vllm.renderers.hf import _detect_content_format
print(json.dumps([_detect_content_format(template, default="string") for template in json.load(sys.stdin)]))
"""


@pytest.mark.vllm
def test_the_tree_is_read_as_by_vllm(tmp_path: Path) -> None:
    templates = [PLAIN, BY_LOOP, BY_BOTH, BY_MACRO, BY_NAME, BY_INDEX, BY_OTHER_NAME]
    # In a process of its own: vLLM does not load after packages that have imported distutils.
    done = subprocess.run(
        [sys.executable, "-c", READ_BY_VLLM],
        input=json.dumps(templates),
        capture_output=True,
        text=True,
        check=True,
    )
    theirs = [form == "openai" for form in json.loads(done.stdout.splitlines()[-1])]
    for number, (template, parts) in enumerate(zip(templates, theirs, strict=True)):
        (tmp_path / str(number)).mkdir()
        assert tokenizer(tmp_path / str(number), template).reading.parts is parts, template
