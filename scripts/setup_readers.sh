#!/usr/bin/env bash
# Make (or bring up to date) the environment of other tools that read exported runs, for tests/system/test_exporting.py.
#
#     ORCH_READERS=DIR bash scripts/setup_readers.sh
#
# It lies over the environment of this checkout (ORCH_VENV, default .venv), which must be there and stays as it is: its
# packages are found behind those installed here. Pins: requirements/readers.txt.
# Exit codes: 2 wrong setting, 5 packages could not be installed.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${ORCH_VENV:-$repo/.venv}
case $venv in /*) ;; *) venv=$PWD/$venv ;; esac
readers=${ORCH_READERS:-}
pins=$repo/requirements/readers.txt

die() {
    printf 'setup_readers: %s\n' "$2" >&2
    exit "$1"
}

[ -n "$readers" ] || die 2 "ORCH_READERS is not set; it names the folder of the new environment."
[ -x "$venv/bin/python" ] || die 2 "no environment at $venv: run scripts/setup_env.sh first, or set ORCH_VENV."

made_from="$venv $(cksum <"$pins")"
[ "$(cat "$readers/.orch-local" 2>/dev/null)" != "$made_from" ] || exit 0

"$venv/bin/python" -m venv --without-pip --clear "$readers"
site() { "$1" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }
# `addsitedir` and not the bare path, so that the editable install of this checkout is found as well.
printf 'import site; site.addsitedir(%s)\n' "$("$venv/bin/python" -c 'import sys; print(repr(sys.argv[1]))' "$(site "$venv/bin/python")")" \
    >"$(site "$readers/bin/python")/orch_local_below.pth"

# uv where setup_env.sh has brought it, else pip.
install() {
    if [ -x "$venv/bin/uv" ]; then
        UV_HTTP_RETRIES=1 "$venv/bin/uv" pip install --quiet --no-config --python "$readers/bin/python" --no-deps --requirement "$pins" \
            2>/dev/null && return
    fi
    "$venv/bin/python" -m pip --python "$readers/bin/python" install --quiet --disable-pip-version-check --no-input \
        --no-compile --no-deps --requirement "$pins"
}
install || die 5 "the packages of $pins could not be installed."
printf '%s\n' "$made_from" >"$readers/.orch-local"
