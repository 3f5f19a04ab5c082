#!/usr/bin/env bash
# Judges a change of vLLM against its merge base, on any machine: no GPU, no image, nothing built.
#   buildkite/check-change.sh CHECKOUT [ARGUMENTS OF check…]
# Annotates the build with what the change breaks and moves. Exit codes: 1 only for what the change
# broke, 75 without a verdict, else 0.
#   CONFORMANCE_BASE: what the change goes to; without it, the branch that the CI names.
#   CONFORMANCE_RESULTS: the folder for records and report (results/check, here).
set -euo pipefail
checkout=$(cd "$1" && pwd)
shift
results=${CONFORMANCE_RESULTS:-$PWD/results/check}
suite=$(cd "$(dirname "$0")/.." && pwd)

if ! command -v rocm-conformance > /dev/null; then
    make --no-print-directory -C "$suite" install >&2 || exit 75
    PATH="$suite/.venv/bin:$PATH"
fi
if [[ -n "${CONFORMANCE_BASE:-}" ]]; then
    set -- --base "$CONFORMANCE_BASE" "$@"
fi

# An agent's checkout has its own commit, and often not the branch that a pull request goes to.
branch=${BUILDKITE_PULL_REQUEST_BASE_BRANCH:-}
if [[ -n "$branch" ]]; then
    git -C "$checkout" fetch --quiet --no-tags origin \
        "+refs/heads/$branch:refs/remotes/origin/$branch" ||
        echo "origin's $branch could not be fetched; what is here of it is used" >&2
fi

note=$results/report/annotation.md
rm -f "$note"
status=0
rocm-conformance check "$checkout" --results "$results" "$@" || status=$?

style=success
case $status in
    0) ;;
    75) style=warning ;;
    *) style=error ;;
esac
if [[ -f "$note" ]]; then
    if [[ -n "${GITHUB_STEP_SUMMARY:-}" ]]; then
        head -c 1000000 "$note" >> "$GITHUB_STEP_SUMMARY"
    elif command -v buildkite-agent > /dev/null; then
        buildkite-agent annotate --style "$style" --context rocm-conformance-change < "$note" ||
            echo "the annotation did not reach Buildkite" >&2
    fi
fi
exit "$status"
