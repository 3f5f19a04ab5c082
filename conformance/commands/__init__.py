"""One module a command: its options, what it does, and what it prints."""
