"""Mutation campaigns: what the suite judges is put wrong on purpose, to see whether it notices."""
