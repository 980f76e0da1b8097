"""Annealing along short vectors of the lattice that all rows share."""
