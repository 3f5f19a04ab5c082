"""Attention problems: what they are, how their tensors are made, which ones a run gives."""
