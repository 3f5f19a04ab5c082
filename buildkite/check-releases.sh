#!/usr/bin/env bash
# Judges every release series in the range by its own edition: selection, removal and metadata, on a
# CDNA and an RDNA target, with everything that was ever waived or found.
#   buildkite/check-releases.sh [ARGUMENTS OF run…]
# RELEASES names other releases, separated by spaces. A release that fails does not stop the rest.
# Exit codes: 1 if a release is not conformant, else 75 if one has no verdict, else 0.
set -euo pipefail
cd "$(dirname "$0")/.."
newest_of_each_series="0.18.1 0.19.1 0.20.2 0.21.0 0.22.1 0.23.0 0.24.0 0.25.1 0.26.0 0.27.1 0.28.0
    0.29.0 0.30.0 0.31.0 0.32.0 0.33.0"
read -r -d '' -a releases <<< "${RELEASES:-$newest_of_each_series}" || true

if ! command -v rocm-conformance > /dev/null; then
    make install || exit 75
    PATH="$PWD/.venv/bin:$PATH"
fi

failed=() without=()
for release in "${releases[@]}"; do
    status=0
    rocm-conformance run --subject "vllm==$release" --suite selection --suite removal \
        --suite metadata --quick --sweep 20000 --target gfx942 --target gfx1201 \
        --results "results/releases/$release" "$@" || status=$?
    case $status in
        0) ;;
        1) failed+=("$release") ;;
        75) without+=("$release") ;;
        *) exit "$status" ;;
    esac
done
echo "${#releases[@]} releases; not conformant: ${failed[*]:-none}; no verdict: ${without[*]:-none}"
[[ ${#failed[@]} -eq 0 ]] || exit 1
[[ ${#without[@]} -eq 0 ]] || exit 75
