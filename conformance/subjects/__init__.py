"""The builds under test, and the worker protocol they are asked through."""
