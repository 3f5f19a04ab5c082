"""Kernels and device functions that the backends share."""
