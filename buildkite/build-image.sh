#!/usr/bin/env bash
# Builds a stack's images and lets the test steps know them.
#   buildkite/build-image.sh STACK
# CONFORMANCE_REGISTRY: where images are pushed, such as registry.example.com/team; without it they
# stay on this machine, which then has to run the tests too.
set -euo pipefail
cd "$(dirname "$0")/.."
stack=$1

make install
built=$(mktemp)
trap 'rm -f "$built"' EXIT
.venv/bin/rocm-conformance images build "$stack" > "$built"

while read -r tag _id; do
    name=${tag#*:}
    name=${name%-*}
    reference=$tag
    if [[ -n "${CONFORMANCE_REGISTRY:-}" ]]; then
        remote=$CONFORMANCE_REGISTRY/$tag
        docker tag "$tag" "$remote"
        docker push "$remote" || exit 75
        reference=$(docker image inspect --format '{{index .RepoDigests 0}}' "$remote")
    fi
    buildkite-agent meta-data set "image-$name" "$reference"
done < "$built"
