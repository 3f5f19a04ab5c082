"""What each instruction does, one module a kind; ``table`` lists them all."""
