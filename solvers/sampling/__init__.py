"""Solvers that draw whole states: fixed rules, stochastic rounding, cross-entropy."""
