"""By which share an energy may exceed the stored one, and why by any.

Vectors of another width, or another mathematical library, round last bits differently.
The states then differ where decisions hang on last bits, so that equality could be
asked for on one kind of machine only. Measured with code for SSE2, AVX2 and AVX-512.
"""

# What decides in float64, or takes no sum in an order of its own: the same states on
# all of them, and energies that differ by the rounding of sums alone.
EXACT = 1e-9
# Gradient steps with sums in float32: energies differed by up to 0.8 %.
RELAXED = 0.02
# Metropolis and tabu searches in float32 gave the same states on all of them, since
# each field is updated by itself. But one logarithm rounded differently would lead
# elsewhere, as another seed does, and seeds differ by a deviation of 1.5 %.
SEARCH = 0.03
