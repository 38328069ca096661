"""What an import or a command loads: nothing that is slow, and no torch in the parent."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import Dataset
from paths import ROOT

from orch_local.prompts import chat_template


def test_importing_the_package_loads_none_of_the_slow_libraries() -> None:
    code = (
        "import sys, orch_local.stats;"
        "sys.exit(' '.join({'numpy', 'scipy', 'statsmodels', 'pandas'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom orch_local.plan.fingerprint import fingerprint\n"
        "from orch_local.engines.base import EngineSettings\n"
        "for name in ('vllm', 'transformers'):\n"
        "    for device in ('cpu', 'cuda'):\n"
        "        fingerprint(EngineSettings(name, Path(), device, 'guidance', 'float32', 64))\n"
        "heavy = {'torch', 'vllm', 'transformers', 'outlines_core', 'tokenizers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)


def test_the_parent_never_imports_torch(run_file: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['orch-local', 'plan', sys.argv[1]]\n"
        "from orch_local.cli.app import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules, 'vllm' in sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(run_file)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "False False"


DEMO_MODELS = Path(chat_template.__file__).parents[1] / "demo" / "models"


def test_planning_does_without_transformers() -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "import orch_local.run.forecast\n"
        "from orch_local.prompts.tokenizer import PromptTokenizer\n"
        "from orch_local.prompts.template import Message\n"
        f"PromptTokenizer(Path({str(DEMO_MODELS / 'quant')!r})).chat([Message('user', 'x')], {{}})\n"
        "print('transformers' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["False", "False"], done.stderr


def test_loading_tables_does_not_import_torch(tmp_path: Path) -> None:
    row = {"question": "1 + 1?", "choices": ["2", "3", "4", "5"], "answer": 0, "subject": "anatomy"}
    table = Dataset.from_list([row])
    table.to_parquet(str(tmp_path / "anything.parquet"))
    table.save_to_disk(str(tmp_path / "saved"))
    code = (
        "import sys; from orch_local.benchmarks.loading import load_questions as load\n"
        "from orch_local.config.run_files import BenchmarkConfig as C\n"
        "assert 'datasets' not in sys.modules and 'pyarrow' not in sys.modules\n"
        "for path in sys.argv[1:]: assert load(C(name='mmlu', path=path)).questions\n"
        "assert 'torch' not in sys.modules"
    )
    files = [str(tmp_path / "anything.parquet"), str(tmp_path / "saved")]
    subprocess.run([sys.executable, "-c", code, *files], check=True, cwd=ROOT)


@pytest.mark.parametrize("name", ["vllm", "transformers"])
def test_determinism_is_told_without_loading_anything(name: str, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom orch_local.engines import registry as engines\n"
        "from orch_local.engines.base import EngineSettings\n"
        f"settings = EngineSettings({name!r}, Path('.'), 'cpu', 'guidance', 'float32', 64)\n"
        "import json\nprint(json.dumps(engines.determinism(settings)))\n"
        f"engines.environment(settings), engines.engine_version({name!r})\n"
        "assert not {'torch', 'vllm', 'transformers', 'outlines_core'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    assert json.loads(done.stdout)["threads"] == 1
