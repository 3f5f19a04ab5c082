"""vLLM as a subject."""
