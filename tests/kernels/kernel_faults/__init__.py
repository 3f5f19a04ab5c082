"""Copies of the reference kernels with one fault each, and the problems that must show it."""
