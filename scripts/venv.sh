#!/bin/sh
# Make .venv hold Ondol and exactly what one lock file names:  scripts/venv.sh base|dev
#
# Every package is checked against the lock's hashes, the build tools too (they are installed
# first, so that no step needs an unlocked download). A stamp named after the locks and this
# folder makes the next run a no-op.
set -eu
cd "$(dirname "$0")/.."
profile=${1:-base}

stamp_of() {
    key=$( { cat "requirements/$1.lock" requirements/build.lock pyproject.toml hatch_build.py \
        src/ondol/kernels/native/*.[ch]; pwd; } | cksum | tr ' ' '-')
    echo ".venv/.locked-$1-$key"
}
install() {
    .venv/bin/python -m pip install -qq --disable-pip-version-check --no-input "$@"
}

stamp=$(stamp_of "$profile")
if [ -f "$stamp" ] && .venv/bin/python -c '' 2>/dev/null; then
    exit 0
fi

if ! .venv/bin/python -c '' 2>/dev/null; then
    python=$(sh scripts/find_python.sh)
    echo "==> creating .venv with $python" >&2
    "$python" -m venv --clear .venv
fi

echo "==> installing the locked $profile packages into .venv (a few minutes the first time)" >&2
install --require-hashes -r requirements/build.lock
install --require-hashes --no-build-isolation -r "requirements/$profile.lock"
install --no-deps --no-build-isolation --editable .

rm -f .venv/.locked-*
touch "$stamp" "$(stamp_of base)"
