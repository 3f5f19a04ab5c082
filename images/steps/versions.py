"""Prints /app/versions.txt: every pin the image was built from, and what is installed of it."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version

ABSENT = "not installed"


def installed(*names: str) -> str:
    """The version of the first of some packages that is installed."""
    for name in names:
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
    return ABSENT


def lines(given: Mapping[str, str]) -> Iterator[str]:
    """``NAME: VALUE`` lines; ``given`` are the build's arguments."""
    yield f"image: {given['NAME']}"
    yield f"stack: {given['STACK']}"
    yield f"suite: {given['SUITE_VERSION']}, sources {given['SOURCES']}"
    yield f"ROCm of the stack: {given['ROCM']}"
    yield f"base image: {given['BASE_IMAGE']} {given['BASE_DIGEST']}".rstrip()
    yield f"ROCm Python packages: {given['ROCM_SDK'] or ABSENT}"
    yield f"python: {platform.python_version()}"
    index = given["TORCH_INDEX"] or "the default index"
    yield f"torch asked for: {given['TORCH_VERSION']} from {index}"
    yield f"torch: {installed('torch')}"
    yield f"triton asked for: {given['TRITON_VERSION'] or 'what torch pins'}"
    yield f"triton: {installed('triton', 'pytorch-triton-rocm', 'triton-rocm')}"
    aiter = f"{given['AITER_REPO']}@{given['AITER_REF']} for {given['AITER_ARCHS']}"
    yield f"aiter asked for: {aiter if given['AITER_REF'] else 'none'}"
    yield f"aiter: {installed('amd-aiter')}"
    yield f"vllm: {installed('vllm')}"


if __name__ == "__main__":
    sys.stdout.write("\n".join(lines(os.environ)) + "\n")
