#!/usr/bin/env bash
# Install the CUDA lock into an environment of its own and drive vLLM as far as it goes without a GPU (tests/cuda).
#
#     bash scripts/test.sh cuda [arguments of pytest]
#
# Takes 4 minutes of CPU besides the installation, and 9 GB. After a pass of the whole tier it writes
# tests/cuda/passed, which is to be committed: CI runs the tier only where that file is not of the files as they are
# (tests/cuda/stamp.py).
#
# Settings, as environment variables, besides those of scripts/setup_env.sh:
#     ORCH_CUDA_VENV         where the environment lies, and stays   (default: a temporary folder)
#     ORCH_WRITE_SNAPSHOTS   not empty: write tests/cuda/snapshots anew; look at the difference before it is committed
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export ORCH_VENV=${ORCH_CUDA_VENV:-$scratch/venv} ORCH_DEVICE=cuda ORCH_CUDA_TIER=1
case $ORCH_VENV in /*) ;; *) ORCH_VENV=$PWD/$ORCH_VENV ;; esac

bash "$repo/scripts/setup_env.sh" --dev
cd "$repo"
# Two processes on the two cores of a small machine: most of the time goes into importing vLLM, once a machine.
"$ORCH_VENV/bin/python" -m pytest -n 2 --dist load "${@:-tests/cuda}"
if [ $# = 0 ]; then
    "$ORCH_VENV/bin/python" tests/cuda/stamp.py write
    echo "tests/cuda/passed is written; commit it, and CI need not run this again"
fi
