#!/usr/bin/env bash
# One report of all cells: annotation, HTML page, JUnit. Runs whether or not the cells passed; it
# fails only where a job's record is missing or broken.
#   CONFORMANCE_TEST_TOKEN: a Test Engine suite's token; without it nothing is uploaded there.
set -euo pipefail
cd "$(dirname "$0")/.."

make install || exit 75
rm -rf results report
mkdir -p results report
buildkite-agent artifact download 'results/**/*' . || echo "no job left any artifact" >&2

status=0
.venv/bin/python -m buildkite.complete results || status=$?

# `report` exits with the merged verdict, which the cells' own steps have shown already.
.venv/bin/rocm-conformance report results --output report || true
style=success
if [[ "$status" -ne 0 ]]; then
    style=error
elif ! [[ -f report/annotation.md ]]; then
    echo "the report was not made" >&2
    exit 75
elif grep -q '<failure\|<error' report/*.xml; then
    style=error
fi
if [[ -f report/annotation.md ]]; then
    buildkite-agent annotate --style "$style" --context rocm-conformance < report/annotation.md
fi

if [[ -n "${CONFORMANCE_TEST_TOKEN:-}" ]]; then
    for file in report/*.xml; do
        # 202 says "received", also for rows that are dropped: see the suite's page for counts.
        curl --fail --silent --show-error --header "Authorization: Token token=\"$CONFORMANCE_TEST_TOKEN\"" \
            --form format=junit --form "data=@$file" \
            --form "run_env[CI]=buildkite" --form "run_env[key]=${BUILDKITE_BUILD_ID:-local}" \
            --form "run_env[url]=${BUILDKITE_BUILD_URL:-}" --form "run_env[branch]=${BUILDKITE_BRANCH:-}" \
            https://analytics-api.buildkite.com/v1/uploads || status=75
    done
fi
exit "$status"
