"""Shares by which an energy may exceed the stored one, and the reasons for them.

Vectors of another width, or another mathematical library, round last bits differently.
States then differ where decisions hang on last bits, so that equality could only be
asked for on one kind of machine. Measured with code for SSE2, AVX2 and AVX-512.
"""

# Solvers that decide in float64, or whose sums have the same order everywhere: the
# states were the same on all machines, and energies differed by the rounding of sums.
EXACT = 1e-9
# Gradient steps with sums in float32: energies differed by up to 0.8 %.
RELAXED = 0.02
# Metropolis and tabu searches in float32: the states were the same on all machines,
# since each field is updated by itself. But one logarithm rounded differently would
# lead elsewhere, as another seed does, and energies of seeds deviate by 1.5 %.
SEARCH = 0.03
