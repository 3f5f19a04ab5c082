#!/usr/bin/env bash
# One part of a mutation campaign, and the page about it as an annotation.
#   buildkite/check-mutants.sh PART [ARGUMENTS OF mutants…]
# SEED names the campaign (the number of the build), COUNT its size, MINUTES how long it may take.
# Exit codes: 75 if some mutants have no verdict; the next try goes on from what this one judged.
set -euo pipefail
cd "$(dirname "$0")/.."
part="$1"
shift
record="results/mutants/$part.jsonl"
mkdir -p results/mutants

if ! command -v rocm-conformance > /dev/null; then
    make install || exit 75
    PATH="$PWD/.venv/bin:$PATH"
fi

# What an earlier try of this step judged.
if command -v buildkite-agent > /dev/null && [[ ${BUILDKITE_RETRY_COUNT:-0} -gt 0 ]]; then
    buildkite-agent artifact download "$record" . || echo "no record of an earlier try"
fi

status=0
rocm-conformance mutants --part "$part" --seed "${SEED:-${BUILDKITE_BUILD_NUMBER:-1}}" \
    --count "${COUNT:-300}" --limit "${MINUTES:-210}" --write results/mutants \
    --format markdown "$@" > "results/mutants-$part.md" || status=$?
if command -v buildkite-agent > /dev/null && [[ -s "results/mutants-$part.md" ]]; then
    buildkite-agent annotate --context "mutants-$part" --style info \
        < "results/mutants-$part.md" || echo "the annotation was not taken"
fi
exit "$status"
