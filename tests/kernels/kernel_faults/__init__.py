"""Reference kernels that are wrong in one way each, and the problems that must show it."""
