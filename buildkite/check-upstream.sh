#!/usr/bin/env bash
# Runs vLLM's own attention tests, of each release that the table of upstream tests was looked into
# for, on a simulated AMD GPU: in Triton's interpreter and as emulated machine code.
#   buildkite/check-upstream.sh [ARGUMENTS OF upstream…]
# Exit codes: 1 if a test fails that no finding explains, else 75 if there is no verdict, else 0.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v rocm-conformance > /dev/null; then
    make install || exit 75
    PATH="$PWD/.venv/bin:$PATH"
fi
exec rocm-conformance upstream --device interpreter --device isa:gfx942 --results results/upstream "$@"
