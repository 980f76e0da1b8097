"""The report: one HTML page on the runs of a store, and its figures as files."""
