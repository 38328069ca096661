#!/usr/bin/env bash
# From a fresh clone to the demo's result on the screen: makes the environment, then runs the demo.
#
#     bash scripts/quickstart.sh [arguments of `orch-local demo`]
#
# Works from any folder; run it again and it goes on where it stopped. Where the environment lies, which Python makes
# it and for which device: see scripts/setup_env.sh, which also lists the exit codes of that part.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$repo/scripts/setup_env.sh"
venv=${ORCH_VENV:-$repo/.venv}

printf '[%4ds] orch-local demo %s\n' "$SECONDS" "$*"
code=0
"$venv/bin/orch-local" demo "$@" || code=$?
printf '[%4ds] the demo ended with code %d\n' "$SECONDS" "$code"
[ $code -ne 0 ] || printf '        What next:  source "%s/bin/activate"  and  orch-local --help\n' "$venv"
exit $code
