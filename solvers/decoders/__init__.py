"""Lattice decoders: variables decided one after the other along a factor of H."""
