#!/bin/sh
# Make .peers (or $PEERS) hold what Ondol is compared with: sentence-transformers, infinity.
#
# An environment of its own, for torch must never get into .venv. Nothing is fetched but packages:
# the models are Ondol's, written out by benchmarks/peer_folders.py. A stamp named after the pins
# makes the next run a no-op.
set -eu
cd "$(dirname "$0")/.."
peers=${PEERS:-.peers}

stamp=$peers/.pinned-$(cksum < requirements/peers.txt | tr ' ' '-')
if [ -f "$stamp" ] && "$peers/bin/python" -c '' 2>/dev/null; then
    exit 0
fi

if ! "$peers/bin/python" -c '' 2>/dev/null; then
    python=$(sh scripts/find_python.sh)
    echo "==> creating $peers with $python" >&2
    "$python" -m venv --clear "$peers"
fi

echo "==> installing the pinned peers into $peers (torch and what it needs: about 1 GB)" >&2
"$peers/bin/python" -m pip install -qq --disable-pip-version-check --no-input \
    -r requirements/peers.txt
"$peers/bin/python" -m pip check >&2

rm -f "$peers"/.pinned-*
touch "$stamp"
