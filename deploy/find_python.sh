# shellcheck shell=sh
# Sourced by the scripts in the project's root: sets $python to an interpreter of Python 3.11 or newer.

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

python=
for candidate in "${PYTHON:-}" .venv/bin/python python3 python3.14 python3.13 python3.12 python3.11; do
    if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 && is_new_enough "$candidate"; then
        python=$candidate
        break
    fi
done

if [ -z "$python" ]; then
    found=$(python3 --version 2>/dev/null || echo "no python3 at all")
    {
        echo "Sandboxweb needs Python 3.11 or newer; this machine has ${found}."
        echo "Install one (Debian 12, Ubuntu 24.04: apt install python3 python3-venv; macOS: brew install python)"
        echo "or name one: PYTHON=/path/to/python3.12 $0"
    } >&2
    exit 1
fi
