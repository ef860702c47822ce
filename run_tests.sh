#!/usr/bin/env bash
# Check and test everything that this machine can. Arguments go to pytest: ./run_tests.sh -k reaper
set -euo pipefail
cd "$(dirname -- "${BASH_SOURCE[0]}")"

. deploy/find_python.sh
"$python" -m deploy.supervisor.bootstrap requirements-dev.lock
PATH="$PWD/.venv/bin:$PATH"

# Neither the settings nor the data of an installation in this checkout, its .env included, may reach the tests.
DATA_DIR=$(mktemp -d)
export DATA_DIR DATABASE_URL="sqlite:///$DATA_DIR/db.sqlite3" REDIS_URL="" SECRET_KEY="" PROXY_TOKEN="" SANDBOX_BACKEND=""
unset APP_PORT PROXY_PORT PROXY_URL
trap 'rm -rf "$DATA_DIR"' EXIT

failed=()
check() {
    local name=$1
    shift
    local started=$SECONDS
    if output=$("$@" 2>&1); then
        printf '%-28s ok   %s s\n' "$name" $((SECONDS - started))
    else
        printf '%-28s FAILED\n%s\n\n' "$name" "$output"
        failed+=("$name")
    fi
}

production() {
    SANDBOXWEB_PRODUCTION=true ALLOWED_HOSTS=sandboxweb.example CSRF_TRUSTED_ORIGINS=https://sandboxweb.example \
        PROXY_TOKEN=only-for-the-check-of-the-settings python manage.py "$@"
}

left_out=
check "ruff check" ruff check .
check "ruff format" ruff format --check .
check "mypy --strict" mypy
check "mypy --strict, supervisor" mypy -p deploy.supervisor
check "lint-imports" lint-imports
check "manage.py check --deploy" production check --deploy --fail-level WARNING
check "makemigrations --check" python manage.py makemigrations --check --dry-run
if command -v shellcheck >/dev/null; then
    check "shellcheck" shellcheck -x start_all.sh run_tests.sh .ci/run deploy/find_python.sh
elif [ "${CI:-}" = true ]; then
    failed+=("shellcheck is not installed, and CI leaves nothing out")
else
    left_out="shellcheck: not installed"
fi

if [ ${#failed[@]} -gt 0 ]; then
    printf 'FAILED: %s\n' "${failed[@]}"
    exit 1
fi

SANDBOXWEB_LEFT_OUT=$left_out pytest "$@"
