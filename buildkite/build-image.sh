#!/usr/bin/env bash
# Builds a stack's images and lets the test steps know them.
#   buildkite/build-image.sh STACK
# Exit codes are the suite's; what this script itself needs of the machine and is not there is 75.
# CONFORMANCE_REGISTRY: where images are pushed, such as registry.example.com/team; without it they
# stay on this machine, which then has to run the tests too.
set -euo pipefail
cd "$(dirname "$0")/.."
stack=$1

make install || exit 75
built=$(mktemp)
trap 'rm -f "$built"' EXIT
.venv/bin/rocm-conformance images build "$stack" > "$built" # its exit code is this script's

while read -r tag _id; do
    name=${tag#*:}
    name=${name%-*}
    reference=$tag
    if [[ -n "${CONFORMANCE_REGISTRY:-}" ]]; then
        remote=$CONFORMANCE_REGISTRY/$tag
        docker tag "$tag" "$remote" || exit 75
        docker push "$remote" || exit 75
        reference=$(docker image inspect --format '{{index .RepoDigests 0}}' "$remote") || exit 75
    fi
    buildkite-agent meta-data set "image-$name" "$reference" || exit 75
done < "$built"
