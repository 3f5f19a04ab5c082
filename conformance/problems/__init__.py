"""Attention problems: what they are, how their tensors are made, and which ones are asked."""
