#!/usr/bin/env bash
# One report of all cells: annotation, HTML page, JUnit. Runs whether or not the cells passed, and
# ends as they did together: 0, 1, or 75 where a job's record is missing or broken.
#   CONFORMANCE_STEPS, CONFORMANCE_SHARDS: the cells' steps, and how many jobs each had; the
#     pipeline sets both. Every job left its results in results/STEP/PART.
#   CONFORMANCE_TEST_TOKEN: a Test Engine suite's token; without it nothing is uploaded there.
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
