#!/bin/sh
# Print a Python of 3.11 or newer that can make virtual environments, or say what is missing.
# PYTHON=… names one to use; otherwise the first that works on PATH.
set -u

usable() { "$1" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

if [ -n "${PYTHON:-}" ]; then
    candidates=$PYTHON
else
    candidates="python3 python3.13 python3.12 python3.11 python3.14 python"
fi

bare=""
for candidate in $candidates; do
    if usable "$candidate"; then
        command -v "$candidate"
        exit 0
    fi
    if recent "$candidate"; then
        bare=${bare:-$candidate}
    fi
done

if [ -n "$bare" ]; then
    echo "error: $bare has no venv or ensurepip module" >&2
    echo "hint: on Debian and Ubuntu: apt-get install python3-venv" >&2
else
    echo "error: no Python 3.11 or newer among: $candidates" >&2
    echo "hint: install Python 3.11+ or name one: make PYTHON=/path/to/python3.11" >&2
fi
exit 1
