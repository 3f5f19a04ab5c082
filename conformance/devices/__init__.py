"""How kernels run: the choice of a Triton driver, made in the worker before Triton loads."""
