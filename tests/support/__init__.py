"""Helpers of tests in more than one folder."""
