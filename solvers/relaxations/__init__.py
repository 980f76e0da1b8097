"""Gradient descent on states between 0 and 1."""
