"""Solvers of other packages behind this project's protocol: one file a package."""
