"""What commands and studies share: runs, checks, logs, tables."""
