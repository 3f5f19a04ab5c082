"""Pages about all releases: what each changed, and what the suites found in it."""
