"""Kernels and solvers at fixed seeds and sweeps, against a stored baseline.

    python -m benchmarks regression

runs the suite (half a minute on one core once kernels are compiled) and says of each
case whether it has got worse or slower: exit code 0 if none has, 1 after a regression,
2 after unusable input. These are faults:

- an energy above the stored one by more than the case's tolerance (`tolerances`);
- a count of flips, sweeps, steps or nodes that differs from the stored one; on another
  processor or with other versions of numpy, scipy or numba, that differs by more than a
  tenth;
- a time of more than ``--tolerance 1.5`` times the stored one. Times are processor
  seconds in units of a calibration measured beside each round, so that machines of
  different speed, or a busy one, can be compared; a case that seems slower is measured
  again before it counts. Between processors of different kinds allow for more, or store
  a baseline of your own: ``--update --baseline FILE``, then ``--baseline FILE``;
- a case that is missing or new, or whose two runs give two answers.

``--update`` stores what was measured: after an intended change, commit the stored file
with the change. A new solver takes one line in `test_solvers`, a new kernel one in
`test_kernels`.

The suite is an ordinary suite of pytest-benchmark:

    pytest benchmarks/regression --benchmark-only

runs it and asserts energies and counts, not times. Options of pytest-benchmark compare
times with an earlier run on the same machine, in more detail, and fail if they have
grown:

    pytest benchmarks/regression --benchmark-only --benchmark-autosave
    pytest benchmarks/regression --benchmark-compare --benchmark-compare-fail=median:20%
"""
