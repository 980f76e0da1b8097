"""Best known states of rounding problems, and their instances for other programs."""
