#!/usr/bin/env bash
# Runs one cell in its image on this machine's GPU.
#   buildkite/run-cell.sh CELL TARGET [ARGUMENTS…]
# Exit codes are the suite's: 0 conformant, 1 not, 75 no verdict (the pipeline tries once more).
set -euo pipefail
cd "$(dirname "$0")/.."
cell=$1 target=$2
shift 2
stack=${cell%%-*}

make install || exit 75
part=$((${BUILDKITE_PARALLEL_JOB:-0} + 1))
parts=${BUILDKITE_PARALLEL_JOB_COUNT:-1}

# The image with the cell's aiter; a stack whose vLLM never had aiter has but one.
with=${cell#*-}
with=${with%%-*}
image=$(buildkite-agent meta-data get "image-$stack-$with" --default "")
if [[ -z "$image" ]]; then
    image=$(buildkite-agent meta-data get "image-$stack-noaiter" --default "")
fi
if [[ -z "$image" ]]; then
    echo "no image of $stack in this build's meta-data: did its build step run?" >&2
    exit 75
fi
if [[ -n "${CONFORMANCE_REGISTRY:-}" ]]; then
    docker pull --quiet "$image" || exit 75
fi

# AMD's agents name their own cards as docker flags: `--device /dev/dri/renderD128 …`.
devices=()
for word in ${BUILDKITE_AGENT_META_DATA_RENDER_DEVICES:-}; do
    if [[ "$word" == /dev/* ]]; then
        devices+=(--render-device "${word%%:*}")
    fi
done

folder=results/cell-$cell-$target/$part
status=0
.venv/bin/rocm-conformance run --runner docker --image "$image" --cell "$cell" \
    --shard "$part/$parts" --results "$folder" "${devices[@]}" "$@" || status=$?

# Buildkite's annotation plugin finds the job by the file's name. Not a copy: the same cases twice
# would be an error of the report, which takes the job from the job.json that the run wrote.
if [[ -f "$folder/junit-$cell.xml" && -n "${BUILDKITE_JOB_ID:-}" ]]; then
    mv "$folder/junit-$cell.xml" "$folder/junit-$BUILDKITE_JOB_ID.xml"
fi
exit "$status"
