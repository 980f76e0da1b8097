"""All numba kernels, one family per module.

The search state of one row of a `QuboBatch` is three vectors of the dtype of H:

- ``z = (1 - 2 x) * s``: what flipping each variable adds to ``s * x``; its sign is the
  state (negative: ``x = 1``),
- ``u = H (s * x) + c / (2 s)``: the local fields,
- ``q = s**2 * diag(H)``: infinite for pinned variables, which are therefore never
  flipped.

Flipping i changes the energy by ``2 z_i u_i + q_i`` and costs one axpy of a row of H,
whatever the granularity of the scale. Energies are kept in float64.

A kernel runs over the rows it is given, one after the other, without the GIL. Each
thread gets a slice of rows (`solvers.threads.over_rows`), and every row has a random
stream of its own, so the answer cannot depend on the number of threads.
"""
