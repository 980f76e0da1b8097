"""Solvers of other packages behind this project's protocol: one file a package.

Every concrete solver in these modules is found by its name, and raced by ``anytime``.
"""
