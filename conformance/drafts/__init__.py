"""Drafts a release's edition from its answers and its source."""
