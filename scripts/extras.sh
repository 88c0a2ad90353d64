#!/bin/sh
# Make .venv-extras hold what the tests marked `extras` need: torch, transformers, bitsandbytes.
#
# An environment of its own, for torch must never get into .venv, whose packages it sees: only what
# is added is installed. Needs .venv with the dev packages. A stamp named after the pins, the locks
# and this folder makes the next run a no-op.
set -eu
cd "$(dirname "$0")/.."
extras=.venv-extras

beneath=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
key=$( { cat requirements/extras.txt requirements/dev.lock; echo "$beneath"; pwd; } |
    cksum | tr ' ' '-')
stamp=$extras/.pinned-$key
if [ -f "$stamp" ] && "$extras/bin/python" -c '' 2>/dev/null; then
    exit 0
fi

echo "==> installing the pinned extras into $extras (torch and what it needs: about 1 GB)" >&2
# Without a pip of its own: that of .venv serves, and is as new as Ondol wants it.
.venv/bin/python -m venv --clear --without-pip "$extras"
python=$extras/bin/python
site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
# addsitedir, not the bare path: it follows the link of the editable Ondol, too.
echo "import site; site.addsitedir('$beneath')" > "$site/beneath.pth"

"$python" -m pip install -qq --disable-pip-version-check --no-input -r requirements/extras.txt
"$python" -m pip check >&2

touch "$stamp"
