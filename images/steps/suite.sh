#!/bin/sh
# The suite, editable: some of its cases look at the checkout itself.
set -eu
cd /app/suite
python -m pip install --quiet --no-index --no-deps --no-build-isolation --editable .
python -m compileall -q conformance kernels vllm_editions
