"""What users ask for: one command a module."""
