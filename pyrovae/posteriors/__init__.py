"""Draws of the posterior with their weights, and what is read of them."""
