#!/bin/sh
# The suite's dependencies, without touching what is there: torch and Triton stay as they are.
set -eu
python /steps/pins.py /project/pyproject.toml /project/constraints.txt /tmp/pins
/steps/pip.sh install --quiet --find-links /wheels \
    -c /tmp/pins/constraints.txt -r /tmp/pins/requirements.txt
