"""Any solver as a dimod sampler."""

from __future__ import annotations

import secrets
import time
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from solvers.base import Solver
from solvers.budget import Budget
from solvers.checks import is_whole
from solvers.errors import InputError
from solvers.io.model import as_model
from solvers.io.solve import DEFAULT_SOLVER, as_solver
from solvers.registry import label

if TYPE_CHECKING:
    import dimod
    from dimod.core.sampler import Sampler

# dimod's samplers take seeds below this.
SEEDS = 2**31
PARAMETERS = (
    "num_reads",
    "seed",
    "initial_states",
    "initial_states_generator",
    "time_limit",
    "sweeps",
    "threads",
)


def as_sampler(
    solver: str | Solver = DEFAULT_SOLVER,
    *,
    time_limit: float | None = None,
    sweeps: int | None = None,
    threads: int = 1,
) -> Sampler:
    """A solver as a `dimod.Sampler` that is `dimod.Initialized` too.

    All reads of a call are the rows of one batch and are solved together; each has its
    own random stream and its own initial state (random where none is given, as in
    dimod).

    Parameters
    ----------
    solver
        A name, with options as in ``"sa[num_sweeps=100]"``, or a `Solver`.
    time_limit
        Seconds for all reads of a call; default for the parameter of the same name.
    sweeps
        Cap on the solver's unit of work; default for the parameter of the same name.
    threads
        Threads that share out the reads; default for the parameter of the same name.

    Raises
    ------
    InputError
        An unknown solver or option, or limits that are not positive.

    Examples
    --------
    >>> from solvers import as_sampler
    >>> sampler = as_sampler("sa[num_sweeps=100]")
    >>> sampler.sample_qubo({("a", "b"): -1.0}, num_reads=3, seed=7).first.energy
    np.float64(-1.0)
    """
    defaults = Budget(seconds=time_limit, sweeps=sweeps, threads=threads)
    return _restore(as_solver(solver), defaults)


@cache
def _sampler_class() -> type[Sampler]:
    # Made at its first use, since its base classes are dimod's.
    import dimod

    class SolverSampler(dimod.Sampler, dimod.Initialized):  # type: ignore[misc, name-defined]
        """A solver of this package behind dimod's interface."""

        def __init__(self, solver: Solver, defaults: Budget) -> None:
            self.solver = solver
            self.defaults = defaults

        @property
        def parameters(self) -> dict[str, list[str]]:
            """Keyword parameters of `sample`."""
            return {name: [] for name in PARAMETERS}

        @property
        def properties(self) -> dict[str, Any]:
            """The solver's label, and the references of its method."""
            return {
                "solver": label(self.solver),
                "references": self.solver.references,
            }

        def __reduce__(self) -> tuple[Any, ...]:
            # pickle cannot find a class that was made in a function.
            return _restore, (self.solver, self.defaults)

        def sample(
            self,
            bqm: dimod.BinaryQuadraticModel,
            *,
            num_reads: int | None = None,
            seed: int | None = None,
            initial_states: Any = None,
            initial_states_generator: Any = "random",
            time_limit: float | None = None,
            sweeps: int | None = None,
            threads: int | None = None,
            **unknown: Any,
        ) -> dimod.SampleSet:
            """Sample from a binary quadratic model.

            Parameters
            ----------
            bqm
                BINARY or SPIN.
            num_reads
                Samples; default: as many as there are initial states, else 1.
            seed
                0 to 2^31 - 1. The same seed gives the same samples, unless `time_limit`
                ends first. None: a fresh seed, which ``info`` reports.
            initial_states, initial_states_generator
                As in `dimod.Initialized`.
            time_limit
                Seconds for all reads together.
            sweeps
                Cap on the solver's unit of work.
            threads
                Threads that share out the reads; their number changes no sample.

            Returns
            -------
            dimod.SampleSet
                One sample per read, in the order of the reads; ``info`` holds
                ``timing`` (nanoseconds), ``seed``, ``status``, ``solver`` and
                ``solver_info``.

            Raises
            ------
            InputError
                A model with NaN or inf, a seed out of range, or a model that the solver
                does not support.
            ValueError
                Initial states that do not fit, by dimod.
            """
            begun = time.perf_counter_ns()
            self.remove_unknown_kwargs(**unknown)
            seed = _seed(seed)
            model = as_model(bqm)
            variables = list(bqm.variables)
            parsed = self.parse_initial_states(
                bqm, initial_states, initial_states_generator, num_reads, seed
            )
            given = parsed.initial_states
            order = [given.variables.index(v) for v in variables]
            batch = model.qubo.take([0] * parsed.num_reads)
            budget = Budget(
                seconds=self.defaults.seconds if time_limit is None else time_limit,
                sweeps=self.defaults.sweeps if sweeps is None else sweeps,
                threads=self.defaults.threads if threads is None else threads,
            )
            prepared = time.perf_counter_ns()
            solution = self.solver.solve(
                batch,
                seed=seed,
                budget=budget,
                initial=given.record.sample[:, order] > 0,
            )
            solved = time.perf_counter_ns()
            values = solution.states.astype(np.int8)
            if bqm.vartype is dimod.SPIN:
                values = 2 * values - 1
            # By the caller's own model: the batch made from it rounds differently.
            score: Any = dimod.SampleSet.from_samples_bqm
            samples: dimod.SampleSet = score((values, variables), bqm)
            finished = time.perf_counter_ns()
            samples.info.update(
                timing={
                    "preprocessing_ns": max(prepared - begun, 1),
                    "sampling_ns": max(solved - prepared, 1),
                    "postprocessing_ns": max(finished - solved, 1),
                },
                seed=seed,
                status=solution.status,
                solver=label(self.solver),
                solver_info=solution.info,
            )
            return samples

    return SolverSampler


def _restore(solver: Solver, defaults: Budget) -> Sampler:
    cls: Any = _sampler_class()
    sampler: Sampler = cls(solver, defaults)
    return sampler


def _seed(seed: int | None) -> int:
    if seed is None:
        return secrets.randbelow(SEEDS)
    if not is_whole(seed) or not 0 <= seed < SEEDS:
        raise InputError(f"seed must be a whole number from 0 to {SEEDS - 1}")
    return int(seed)
