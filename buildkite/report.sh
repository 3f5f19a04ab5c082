#!/usr/bin/env bash
# One report of all cells: annotation, HTML page, JUnit. Runs whether or not the cells passed, and
# ends as they did together: 0, 1, or 75 where a job's record is missing or broken.
#   CONFORMANCE_STEPS, CONFORMANCE_SHARDS: the cells' steps, and how many jobs each had; the
#     pipeline sets both. Every job left its results in results/STEP/PART.
#   CONFORMANCE_BASELINE: an earlier build to compare with, such as the address of an artifact.
#   CONFORMANCE_TEST_TOKEN_FILE, CONFORMANCE_TEST_TOKEN: a file with a Test Engine suite's token, or
#     the token itself; without one nothing is uploaded there.
set -euo pipefail
cd "$(dirname "$0")/.."
token=${CONFORMANCE_TEST_TOKEN:-} token_file=${CONFORMANCE_TEST_TOKEN_FILE:-}
unset CONFORMANCE_TEST_TOKEN # no program that runs here needs it

make install || exit 75
rm -rf results report
mkdir -p results report
buildkite-agent artifact download 'results/**/*' . || echo "no job left any artifact" >&2

arguments=(--output report --test-engine report/test-engine)
for step in $CONFORMANCE_STEPS; do
    for ((part = 1; part <= CONFORMANCE_SHARDS; part++)); do
        arguments+=(--expect-results "$step/$part")
    done
done
if [[ -n "${CONFORMANCE_BASELINE:-}" ]]; then
    arguments+=(--baseline "$CONFORMANCE_BASELINE")
fi
status=0
.venv/bin/rocm-conformance report results "${arguments[@]}" || status=$?
if ! [[ -f report/annotation.md ]]; then
    echo "the report was not made" >&2
    exit 75
fi

# What goes wrong from here on is infrastructure. It undoes no verdict: only a build that would have
# passed is worth the retry.
unsent() {
    echo "$1" >&2
    [[ "$status" -ne 0 ]] || status=75
}

style=success
[[ "$status" -eq 0 ]] || style=error
buildkite-agent annotate --style "$style" --context rocm-conformance < report/annotation.md ||
    unsent "the annotation did not reach Buildkite"

# Sends one file of one job's results to Test Engine, once in a build, whatever is retried: the mark
# is set before, and says afterwards if it has to be sent again. The token goes through a pipe, not
# the command line, which every process of the host can read.
upload() {
    local file=$1 name job mark
    name=$(basename "$file" .json)
    job=${name%.*}
    [[ "$job" != no-job ]] || job=${BUILDKITE_JOB_ID:-}
    mark=conformance-test-engine-$name
    case $(buildkite-agent meta-data get "$mark" --default "") in
        sent | sending) return 0 ;;
    esac
    buildkite-agent meta-data set "$mark" sending || return 1
    # 202 says "received", also for rows that are dropped: see the suite's page for counts.
    if printf 'header = "Authorization: Token token=\\"%s\\""\n' "$token" |
        curl --config - --fail --silent --show-error --retry 2 --max-time 60 \
            --form format=json --form "data=@$file" --form "run_env[CI]=buildkite" \
            --form-string "run_env[key]=${BUILDKITE_BUILD_ID:-local}" \
            --form-string "run_env[url]=${BUILDKITE_BUILD_URL:-}" \
            --form-string "run_env[branch]=${BUILDKITE_BRANCH:-}" \
            --form-string "run_env[commit_sha]=${BUILDKITE_COMMIT:-}" \
            --form-string "run_env[number]=${BUILDKITE_BUILD_NUMBER:-}" \
            --form-string "run_env[job_id]=$job" \
            --form-string "run_env[message]=${BUILDKITE_MESSAGE:-}" \
            https://analytics-api.buildkite.com/v1/uploads; then
        buildkite-agent meta-data set "$mark" sent || true
    else
        buildkite-agent meta-data set "$mark" failed || true
        return 1
    fi
}

if [[ -n "$token_file" ]]; then
    token=$(cat "$token_file") || unsent "$token_file: the token for Test Engine cannot be read"
fi
token=${token//[[:space:]]/}
if [[ -n "$token" ]]; then
    for file in report/test-engine/*.json; do
        [[ -e "$file" ]] || continue
        if ! upload "$file"; then
            unsent "$file did not reach Test Engine; neither do the files after it"
            break
        fi
    done
fi
exit "$status"
