#!/bin/sh
# Resolve pyproject.toml into requirements/*.lock: pinned, hashed, for every platform and
# Python from 3.11 on. Existing pins are kept where they still fit; `make lock UPGRADE=1` renews them.
set -eu
cd "$(dirname "$0")/.."
tools=.venv/lock-tools
if [ ! -x "$tools/bin/uv" ]; then
    .venv/bin/python -m venv "$tools"
    "$tools/bin/python" -m pip install --quiet --disable-pip-version-check 'uv>=0.8'
fi

compile() {
    "$tools/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-annotate --no-header ${UPGRADE:+--upgrade} "$@"
}

compile pyproject.toml --group build --group dev --output-file requirements/dev.lock
compile pyproject.toml --group build --constraint requirements/dev.lock --output-file requirements/base.lock
compile --group build --constraint requirements/dev.lock --output-file requirements/build.lock
