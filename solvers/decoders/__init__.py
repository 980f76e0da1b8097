"""Lattice decoders: variables decided one after another along a factor of H."""
