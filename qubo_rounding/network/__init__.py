"""From networks and images to rounding problems, and back to accuracies; all torch."""
