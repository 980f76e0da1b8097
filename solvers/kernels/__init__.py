"""Every numba kernel, one family a module.

The search state of one row of a `QuboBatch` is three vectors of the dtype of H:

- ``z = (1 - 2 x) * s``: what flipping each variable adds to ``s * x``; its sign is the
  state (negative: ``x = 1``),
- ``u = H (s * x) + c / (2 s)``: the local fields,
- ``q = s**2 * diag(H)``: infinite for pinned variables, which are so never flipped.

Flipping i changes the energy by ``2 z_i u_i + q_i`` and costs one axpy of a row of H,
whatever the granularity of the scale. Energies are carried in float64.

Kernels run over the rows they are given, one after the other, without the GIL; threads
get slices of rows (`solvers.threads.over_rows`) and every row has a random stream of
its own, so the answer cannot depend on the number of threads.
"""
