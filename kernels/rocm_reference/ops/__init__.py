"""Device functions that the backends' kernels are made of."""
