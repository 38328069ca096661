#!/usr/bin/env bash
# Run the tests, in the environment of this checkout; it is made first where it is missing.
#
#     bash scripts/test.sh [arguments of pytest]      paths are relative to the checkout
#     bash scripts/test.sh cuda [arguments of pytest] the CUDA build of vLLM without a GPU: see scripts/test_cuda.sh
#
# Settings and exit codes of the environment part: scripts/setup_env.sh. Else the exit code is pytest's.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[ "${1:-}" != cuda ] || exec bash "$repo/scripts/test_cuda.sh" "${@:2}"
bash "$repo/scripts/setup_env.sh" --dev
venv=${ORCH_VENV:-$repo/.venv}
case $venv in /*) ;; *) venv=$PWD/$venv ;; esac

cd "$repo"
# Two processes, a file of tests to one of them: no more, because a real engine takes 2 to 3 GB. In the order of their
# names: files of few tests are those with real engines, and at the end one process would be left alone with them.
exec "$venv/bin/python" -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
