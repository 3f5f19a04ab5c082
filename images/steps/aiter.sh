#!/bin/sh
# Builds the stack's aiter from source into /dist, or leaves /dist empty where it has none.
set -eu
mkdir -p /dist
if [ -z "$AITER_REF" ]; then
    echo "no aiter in this image"
    exit 0
fi
if [ -n "${ROCM_PATH:-}" ] || [ -d /opt/rocm ]; then
    export ROCM_PATH="${ROCM_PATH:-/opt/rocm}"
else
    ROCM_PATH="$(rocm-sdk path --root)"
    export ROCM_PATH
fi
export PATH="$ROCM_PATH/bin:$PATH"
if ! command -v hipcc >/dev/null; then
    echo "aiter is built by hipcc, and this base image has none: build without aiter (--cpu)" >&2
    exit 1
fi
if [ -f /run/secrets/ca_bundle ]; then
    export GIT_SSL_CAINFO=/run/secrets/ca_bundle
fi
if ! command -v git >/dev/null; then
    apt-get update
    apt-get install -y --no-install-recommends git build-essential
fi
git clone --filter=blob:none "https://github.com/${AITER_REPO:?}.git" /tmp/aiter
cd /tmp/aiter
git checkout --detach "$AITER_REF"
git submodule update --init --recursive --filter=blob:none
/steps/pip.sh install --quiet 'setuptools<80' wheel ninja packaging pybind11 pyyaml psutil
# Not requirements.txt: what it names of torch and Triton would replace the image's own.
GPU_ARCHS="$AITER_ARCHS" PREBUILD_KERNELS="$AITER_PREBUILT" AITER_USE_SYSTEM_TRITON=1 \
    python setup.py bdist_wheel --dist-dir=/dist
