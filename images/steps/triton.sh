#!/bin/sh
# The stack's nearest Triton release, in CPU images; elsewhere torch has brought its own.
set -eu
if [ -n "$TRITON_VERSION" ]; then
    /steps/pip.sh install --quiet --find-links /wheels --no-deps "triton==$TRITON_VERSION"
fi
