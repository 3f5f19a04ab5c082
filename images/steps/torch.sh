#!/bin/sh
# Makes /opt/venv with torch, and the Triton that it pins. A base image that has torch keeps it, and
# everything with it: the environment then sees the base's packages.
set -eu
python="$(command -v "python${PYTHON:?}")"
if "$python" -c 'import torch' 2>/dev/null; then
    "$python" -m venv --system-site-packages /opt/venv
    echo "torch is the base image's own"
    exit 0
fi
"$python" -m venv /opt/venv
index=""
if [ -n "$TORCH_INDEX" ]; then
    index="--index-url=$TORCH_INDEX"
fi
if [ -n "$ROCM_SDK" ]; then
    # TheRock: ROCm itself is Python packages, with the kernels of each target in an extra.
    devices=""
    for arch in $GPU_ARCHS; do
        devices="$devices,device-$arch"
    done
    /steps/pip.sh install --quiet "$index" "rocm[libraries,devel$devices]==$ROCM_SDK"
    rocm-sdk init
    /steps/pip.sh install --quiet "$index" "torch[${devices#,}]==$TORCH_VERSION"
    exit 0
fi
if [ -n "$index" ]; then
    /steps/pip.sh install --quiet "$index" "torch==$TORCH_VERSION"
else
    /steps/pip.sh install --quiet --find-links /wheels "torch==$TORCH_VERSION"
fi
