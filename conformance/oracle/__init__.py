"""Attention in float64, the error bound with its proof, and the judgement by them."""
