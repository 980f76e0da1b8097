"""From weights and activations to binary quadratic problems, and back."""
