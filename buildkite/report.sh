#!/usr/bin/env bash
# One report of all cells: annotation, HTML page, JUnit. Runs whether or not the cells passed, and
# ends as they did together: 0, 1, or 75 where a job's record is missing or broken.
#   CONFORMANCE_STEPS, CONFORMANCE_SHARDS: the cells' steps, and how many jobs each had; the
#     pipeline sets both. Every job left its results in results/STEP/PART.
#   CONFORMANCE_TEST_TOKEN_FILE, CONFORMANCE_TEST_TOKEN: a file with a Test Engine suite's token, or
#     the token itself; without one nothing is uploaded there.
set -euo pipefail
cd "$(dirname "$0")/.."

make install || exit 75
rm -rf results report
mkdir -p results report
buildkite-agent artifact download 'results/**/*' . || echo "no job left any artifact" >&2

expected=()
for step in $CONFORMANCE_STEPS; do
    for ((part = 1; part <= CONFORMANCE_SHARDS; part++)); do
        expected+=(--expect-results "$step/$part")
    done
done
status=0
.venv/bin/rocm-conformance report results --output report "${expected[@]}" || status=$?
if ! [[ -f report/annotation.md ]]; then
    echo "the report was not made" >&2
    exit 75
fi
style=success
[[ "$status" -eq 0 ]] || style=error
buildkite-agent annotate --style "$style" --context rocm-conformance < report/annotation.md

# Sends one JUnit file to Test Engine, once in a build: a job that is retried sends it no second time.
# The token goes through a pipe, not the command line, which every process of the host can read.
upload() {
    local file=$1 mark
    mark=conformance-uploaded-$(sha256sum "$file" | cut -c1-32)
    if buildkite-agent meta-data exists "$mark"; then
        return 0
    fi
    # 202 says "received", also for rows that are dropped: see the suite's page for counts.
    printf 'header = "Authorization: Token token=\\"%s\\""\n' "$token" |
        curl --config - --fail --silent --show-error --retry 3 --max-time 120 \
            --form format=junit --form "data=@$file" --form "run_env[CI]=buildkite" \
            --form-string "run_env[key]=${BUILDKITE_BUILD_ID:-local}" \
            --form-string "run_env[url]=${BUILDKITE_BUILD_URL:-}" \
            --form-string "run_env[branch]=${BUILDKITE_BRANCH:-}" \
            --form-string "run_env[commit_sha]=${BUILDKITE_COMMIT:-}" \
            --form-string "run_env[number]=${BUILDKITE_BUILD_NUMBER:-}" \
            --form-string "run_env[job_id]=${BUILDKITE_JOB_ID:-}" \
            --form-string "run_env[message]=${BUILDKITE_MESSAGE:-}" \
            https://analytics-api.buildkite.com/v1/uploads || return 1
    buildkite-agent meta-data set "$mark" uploaded
}

token=${CONFORMANCE_TEST_TOKEN:-}
if [[ -n "${CONFORMANCE_TEST_TOKEN_FILE:-}" ]]; then
    token=$(< "$CONFORMANCE_TEST_TOKEN_FILE") || token=
fi
if [[ -n "$token" ]]; then
    for file in report/*.xml; do
        if ! upload "$file"; then
            echo "$file did not reach Test Engine" >&2
            # A verdict stays a verdict: only a build without one is worth the retry.
            [[ "$status" -ne 0 ]] || status=75
        fi
    done
fi
exit "$status"
