#!/usr/bin/env bash
# Start the whole of Sandboxweb from a bare checkout: proxy, app and reaper, in the foreground.
set -euo pipefail
cd "$(dirname -- "${BASH_SOURCE[0]}")"

usage() {
    cat <<'TEXT'
Usage: ./start_all.sh [--verbose]

Makes .venv and installs what is needed (first run only), migrates the database, creates an administrator and an
API key (first run only), starts proxy, app and reaper, waits until they are healthy and runs a first print(1+1).
It stays in the foreground and starts again what dies; Ctrl-C or SIGTERM stops everything.

  --verbose    show the log lines of the three processes here too (they are always in $DATA_DIR/logs)

Settings, from the environment or a file .env beside this script:
  APP_PORT (3000)      APP_HOST (127.0.0.1)      where the app server listens
  PROXY_PORT (8000)    PROXY_HOST (127.0.0.1)    where the proxy server listens
  SANDBOX_BACKEND      auto (default), bubblewrap, docker or podman
  DATABASE_URL         sqlite:///$DATA_DIR/db.sqlite3 unless set, e.g. postgres://user:password@host:5432/name
  REDIS_URL            a channel layer for several app servers; in memory unless set
  DATA_DIR (var)       database, credentials.env, logs
  PYTHON               the interpreter to make .venv from

docs/settings.md has all of them.
TEXT
}

for argument in "$@"; do
    case $argument in
        -h | --help) usage; exit 0 ;;
        -v | --verbose) ;;
        *) echo "Unknown argument: $argument" >&2; usage >&2; exit 2 ;;
    esac
done

. deploy/find_python.sh
"$python" -m deploy.supervisor.bootstrap requirements.lock
exec .venv/bin/python -m deploy.supervisor "$@"
