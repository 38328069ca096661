#!/usr/bin/env bash
# Run the tests, in the environment of this checkout; it is made first where it is missing.
#
#     bash scripts/test.sh [arguments of pytest]        unit, system and engine; or the paths among the arguments
#     bash scripts/test.sh unit [arguments of pytest]   no engine, no process: what `python -m pytest` runs
#     bash scripts/test.sh system [...]                 workers, kills, SLURM, a browser, bundles
#     bash scripts/test.sh engine [...]                 real vLLM and transformers
#     bash scripts/test.sh cuda [...]                   the CUDA build of vLLM without a GPU: see scripts/test_cuda.sh
#
# Paths are relative to the checkout. ORCH_FUZZ says how many examples a property draws: tests/support/fuzzing.py.
# Settings and exit codes of the environment part: scripts/setup_env.sh. Else the exit code is pytest's.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[ "${1:-}" != cuda ] || exec bash "$repo/scripts/test_cuda.sh" "${@:2}"
bash "$repo/scripts/setup_env.sh" --dev
venv=${ORCH_VENV:-$repo/.venv}
case $venv in /*) ;; *) venv=$PWD/$venv ;; esac
cd "$repo"

# The slow tiers first: in the end no process is left alone with a long file.
folders=(tests/engine tests/system tests/unit)
case ${1:-} in
    unit | system | engine)
        folders=("tests/$1")
        shift
        ;;
    *) for argument in "$@"; do [ ! -e "${argument%%::*}" ] || folders=(); done ;;
esac
# Two processes, a file of tests to one of them: no more, because a real engine takes 2 to 3 GB. In the order of their
# names, not of their size: the files of few tests are those with real engines.
exec "$venv/bin/python" -m pytest -n 2 --dist loadfile --no-loadscope-reorder ${folders[@]+"${folders[@]}"} "$@"
