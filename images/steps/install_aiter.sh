#!/bin/sh
# The wheel of the aiter stage, where it made one.
set -eu
for wheel in /dist/*.whl; do
    if [ -f "$wheel" ]; then
        python /steps/pins.py "" "" /tmp/pins
        /steps/pip.sh install --quiet --find-links /wheels -c /tmp/pins/constraints.txt "$wheel"
    fi
done
