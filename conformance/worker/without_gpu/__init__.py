"""A process whose "cuda" tensors live on the CPU and whose kernels run on one of the devices.

``rocm-conformance simulate --device`` makes every Python process of a command such a one, so that
vLLM's own tests of its kernels run where there is no GPU. Runs in the subject's own Python.
"""
