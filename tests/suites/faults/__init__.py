"""Selectors that are wrong in one way each, and the worker that serves them to the suite."""
