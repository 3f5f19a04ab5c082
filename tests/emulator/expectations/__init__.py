"""What others expect of single instructions, as numbers with their sources."""
