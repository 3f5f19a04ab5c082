"""Judges a change of vLLM: a checkout against the commit that it started from."""
