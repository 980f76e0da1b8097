"""`descend` under the name that solvers in files of their own may import it from."""

from solvers.polish import descend

__all__ = ["descend"]
