#!/usr/bin/env bash
# Makes .venv with everything that the demo and the tests need, exactly as constraints.txt pins it.
#
#   bash scripts/setup.sh [--tests]     --tests also sees to Chromium, which tests/browser opens pages with, and to espeak-ng and sox,
#                                       with which tests/learn makes speech
#
# A finished set-up is known by a stamp that holds what it was made from; then this ends at once. Without one, whatever
# stands in .venv is the remains of a run that was cut off, and is thrown away. PYTHON=/path/to/python picks an interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."

stamp=.venv/.foveate-setup
extras=audio,video,hub,heic,zstd,quant,timm,torchaudio,tensorboard,demo,dev

say() { printf '==> %s\n' "$*" >&2; }

usable() { "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' >/dev/null 2>&1; }

find_python() {
  local name
  for name in ${PYTHON:-} python3.11 python3.12 python3.13 python3.14 python3; do
    if usable "$name"; then command -v "$name"; return; fi
  done
  return 1
}

# Runs apt-get as root, directly or through sudo; fails quietly where neither is possible. The lock (9) is not handed on:
# a service that a package starts would keep it for ever.
apt() {
  command -v apt-get >/dev/null || return 1
  if [ "$(id -u)" = 0 ]; then DEBIAN_FRONTEND=noninteractive apt-get "$@" >&2 9>&-
  elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then sudo -n DEBIAN_FRONTEND=noninteractive apt-get "$@" >&2 9>&-
  else return 1; fi
}

apt_install() { apt update -q && apt install -q -y --no-install-recommends "$@"; }

# What the set-up is made from. The folder counts: an editable install knows where it stands.
wanted() {
  { cat pyproject.toml constraints.txt scripts/setup.sh; pwd; } | cksum
}

has_nvidia() { [ -e /dev/nvidia0 ] || { command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; }; }

# PyPI's Linux wheels of torch bring gigabytes of CUDA packages. Without an NVIDIA card the CPU build is taken: from pip's
# own sources if they have it, else from the PyTorch project's index of CPU wheels.
install_torch() {
  local version
  version=$(sed -n 's/^torch==//p' constraints.txt)
  if [ "$(uname -s)" != Linux ] || has_nvidia; then
    "${pip[@]}" "torch==$version"
  else
    "${pip[@]}" "torch==$version+cpu" 2>/dev/null ||
      "${pip[@]}" --index-url https://download.pytorch.org/whl/cpu "torch==$version" ||
      { say "no CPU build of torch $version can be reached: install it into .venv yourself, or set up pip to find it"; return 1; }
  fi
}

install() {
  local python
  python=$(find_python) || { apt_install python3 python3-venv && python=$(find_python); } || {
    say "Python 3.11 to 3.14 with venv is needed: install it (Debian, Ubuntu: python3-venv), or set PYTHON=/path/to/python"
    exit 1
  }
  say "setting up .venv with $python (a few minutes, once)"
  rm -rf .venv
  "$python" -m venv .venv
  pip=(.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt)
  install_torch
  # The build tool comes under the same pins, so it is installed first and the build is not isolated.
  "${pip[@]}" hatchling editables
  "${pip[@]}" --no-build-isolation --editable ".[$extras]"
  .venv/bin/python -m pip check --disable-pip-version-check >&2 || say "pip check found the above; going on"
  .venv/bin/python -c 'import torch, transformers, foveate.config.load'
  wanted > "$stamp"
  say "set-up done"
}

has_any() {
  local name
  for name in "$@"; do
    if command -v "$name" >/dev/null; then return; fi
  done
  return 1
}

# What the tests use beside Python packages; those that miss it skip themselves.
tools() {
  if ! has_any chromium chromium-browser google-chrome; then
    say "installing Chromium for the browser tests"
    apt_install chromium fonts-dejavu-core || say "Chromium is missing and can't be installed here: the browser tests will be skipped"
  fi
  if ! has_any espeak-ng || ! has_any sox; then
    say "installing espeak-ng and sox for the speech tests"
    apt_install espeak-ng sox || say "espeak-ng or sox is missing and can't be installed here: the speech tests will be skipped"
  fi
}

# Two at once would tear each other's .venv down.
exec 9> .foveate-setup.lock
if command -v flock >/dev/null; then flock 9; fi
if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$(wanted)" ] || ! .venv/bin/python -c '' 2>/dev/null; then install; fi
if [ "${1:-}" = --tests ]; then tools; fi
