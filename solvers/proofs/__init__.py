"""Exact answers and certified lower bounds."""
