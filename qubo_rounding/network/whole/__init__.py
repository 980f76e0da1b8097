"""Whole networks: every layer rounded in the order of the graph."""
