"""Solvers of other packages behind this project's protocol: one file per package.

Every concrete solver in these modules is available by its name, and ``anytime``
compares it with the built-in ones.
"""
