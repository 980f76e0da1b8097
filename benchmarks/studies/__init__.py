"""What the project claims: one study a module."""
