"""Triton on a device of ours: the driver that takes its launches, and its interpreter."""
