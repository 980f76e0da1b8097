"""Solvers that flip one variable at a time: descents, annealing, tabu searches."""
