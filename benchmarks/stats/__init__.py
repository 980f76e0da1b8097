"""Statistics of runs: functions of arrays that know neither stores nor solvers.

Everywhere lower is better, times are seconds, and a cost that was not reached is
infinite. Runs on rows of one layer, or on one layer with several seeds, are no
independent samples: what is drawn anew by a bootstrap, and what a test counts as one
pair, is the layer.
"""
