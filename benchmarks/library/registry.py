"""`Registry`: the best known state of every row of a problem, guarded by a verifier.

A registry is a JSON file with a line for each row, so that a change shows as a change
of lines. Nothing enters it but states, whose energies are computed here from the
problem's arrays; what a solver claims is never looked at.

A problem is known by `identity`: by what it was posed from, where its `meta` says that,
so that it is recognised although another processor has summed its moment to another
last bit. What is found is computed anew on the problem at hand, and a row whose energy
is not the stored one counts as not found.
"""

from __future__ import annotations

import hashlib
import json
import math
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchmarks.harness.runs import Run
from qubo_rounding.problem import RoundingProblem
from qubo_rounding.problem.problem import OBJECTIVES
from solvers import InputError, Solver, parse_solver
from solvers.atomic import replacing
from solvers.checks import binary, is_number, is_whole
from solvers.proofs.exact import Exact
from solvers.qubo import Float

FORMAT = 1
# Name of the registry that ships.
SHIPPED = "best_known.json"
# A state is better if its energy is lower by more than this share of it …
BETTER = 1e-9
# … and a stored energy is the recomputed one up to this share.
SAME = 1e-6
# What a problem was posed from, in its `meta`.
ORIGIN = (
    "layer",
    "objective",
    "weights_hash",
    "calibration_digest",
    "count",
    "bits",
    "grid",
)
# What is told about a problem beside them.
ABOUT = ("weights", "images")

# What is kept of a row beside its energy.
KINDS = {"states": str, "solver": str, "proved": bool, "when": str}

States = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, eq=False)
class Best:
    """The best known state of a row.

    Attributes
    ----------
    energy
        The error, computed in float64 from the problem's arrays.
    states : uint8 [n]
        The state.
    solver
        Label of the solver that has found it.
    proved
        Whether `exact` has proved that no state is better.
    when
        Date (UTC, ISO 8601).
    """

    energy: float
    states: States
    solver: str
    proved: bool
    when: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Entry:
    """The best known states of a problem.

    Attributes
    ----------
    n
        Number of variables of a row.
    about
        What the problem was posed from.
    rows
        By number of the row.
    """

    n: int
    about: dict[str, Any]
    rows: dict[int, Best] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Update:
    """What a registry has taken.

    Attributes
    ----------
    better, proved
        Numbers of the rows that have another state, and of those that are proved now.
    contradictions
        A line for each row in which a proof and a better state exclude each other.
    """

    better: tuple[int, ...]
    proved: tuple[int, ...]
    contradictions: tuple[str, ...]


@dataclass(eq=False)
class Registry:
    """Best known states, by `identity` of the problem.

    Attributes
    ----------
    entries
        What is known.
    """

    entries: dict[str, Entry] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Registry:
        """Read a registry.

        Raises
        ------
        InputError
            There is none, it is damaged, or a newer version has written it.
        """
        try:
            content = json.loads(path.read_text("utf-8"))
        except OSError as error:
            raise InputError(
                f"cannot read {path}: {error.strerror or error}"
            ) from error
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} is no registry, or damaged: {error}") from error
        try:
            return cls(_parse(content))
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    def save(self, path: Path) -> None:
        """Write the registry whole or not at all.

        Raises
        ------
        InputError
            `path` cannot be written.
        """
        with replacing(path) as partial:
            partial.write_text("".join(_format(self.entries)), "utf-8")

    def find(self, problem: RoundingProblem) -> dict[int, Best]:
        """What is known of a problem's rows, with energies on the problem at hand.

        The problem may have fewer rows than the one that is known. Rows whose energy
        here is not the stored one are left out.
        """
        entry = self.entries.get(identity(problem))
        if entry is None:
            return {}
        rows = count_rows(problem)
        known = {row: best for row, best in entry.rows.items() if row < rows}
        states = problem.nearest().reshape(rows, -1)
        if entry.n != states.shape[1]:
            return {}
        for row, best in known.items():
            states[row] = best.states
        energies = problem.local_mse(states.reshape(problem.weight.shape))
        return {
            row: replace(best, energy=float(energies[row]))
            for row, best in known.items()
            if _same(best.energy, energies[row])
        }

    def energies(self, problem: RoundingProblem) -> Float:
        """Energies [rows] of what is known of a problem; infinite where nothing is."""
        energies = np.full(count_rows(problem), np.inf)
        for row, best in self.find(problem).items():
            energies[row] = best.energy
        return energies

    def take(
        self,
        problem: RoundingProblem,
        states: ArrayLike,
        *,
        solver: str,
        proved: Sequence[bool] | None = None,
        when: str | None = None,
    ) -> Update:
        """Take the states of rows that are better than what is known.

        Parameters
        ----------
        problem
            The problem, with which energies are computed.
        states : [R, n]
            The states. Of states of equal energy the first one stays.
        solver
            Label of the solver that has found them.
        proved
            For each row, whether a proof says that no state is better; see `proofs`.
        when
            Date; default: today's.

        Raises
        ------
        InputError
            States that are no states of this problem.
        """
        x = _own_states(problem, states)
        energies = problem.local_mse(x.reshape(problem.weight.shape))
        if not np.isfinite(energies).all():
            raise InputError("an energy of these states is not finite")
        when = when or datetime.now(UTC).date().isoformat()
        key, known = identity(problem), self.find(problem)
        old = self.entries.get(key)
        kept = dict(old.rows) if old and old.n == x.shape[1] else {}
        entry = Entry(n=x.shape[1], about=_about(problem), rows=kept)
        better, newly, contradictions = [], [], []
        for row, (energy, own) in enumerate(zip(energies.tolist(), x, strict=True)):
            best = known.get(row)
            proof = proved is not None and bool(proved[row])
            if best is None or _below(energy, best.energy):
                if best is not None and best.proved:
                    contradictions.append(
                        f"row {row}: {best.energy:g} was proved, {energy:g} is better"
                    )
                entry.rows[row] = Best(
                    energy=energy, states=own, solver=solver, proved=proof, when=when
                )
                better.append(row)
                newly += [row] if proof else []
            elif proof and _below(best.energy, energy):
                contradictions.append(
                    f"row {row}: {energy:g} is said to be proved, {best.energy:g} is "
                    "known"
                )
            elif proof and not best.proved:
                entry.rows[row] = replace(best, proved=True)
                newly.append(row)
        self.entries[key] = entry
        return Update(
            better=tuple(better),
            proved=tuple(newly),
            contradictions=tuple(contradictions),
        )

    def take_run(self, problem: RoundingProblem, run: Run) -> Update:
        """Take the states of a run of one of the harness's commands.

        Raises
        ------
        InputError
            The run is another problem's or has no states; or as `take`.
        """
        if run.spec.problem != problem.digest:
            raise InputError(f"run {run.spec.run_id} is of another problem")
        if run.states is None:
            raise InputError(
                f"run {run.spec.run_id} has no states ({run.status}): a claim without "
                "them is not taken"
            )
        solver = parse_solver(run.spec.solver)
        return self.take(
            problem,
            run.states,
            solver=run.spec.solver,
            proved=proofs(solver, run.info),
            when=run.began[:10] or None,
        )

    def mismatches(self, problem: RoundingProblem) -> list[str]:
        """A line for each known row whose energy on the problem is not the stored one.

        Raises
        ------
        InputError
            Nothing is known of the problem.
        """
        entry = self.entries.get(identity(problem))
        if entry is None:
            raise InputError(f"nothing is known of problem {identity(problem)}")
        found = self.find(problem)
        return [
            f"row {row}: its state does not have the energy {best.energy!r}"
            for row, best in sorted(entry.rows.items())
            if row < count_rows(problem) and row not in found
        ]


def identity(problem: RoundingProblem) -> str:
    """What a problem is known by: a hash of its origin, or else of its arrays."""
    meta = problem.meta
    posed = all(key in meta for key in ORIGIN) and meta["objective"] == OBJECTIVES[0]
    # Scales that were fitted to answers, and errors of its own, are no origin's; and
    # rows from the midst of a layer have other numbers in it.
    own = "turns" in meta or "first_row" in meta or problem.gradient is not None
    if own or not posed:
        return problem.digest[:16]
    origin = {key: meta[key] for key in ORIGIN} | {"saturated": problem.saturated}
    text = json.dumps(origin, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def count_rows(problem: RoundingProblem) -> int:
    """Number of rows that have an energy of their own."""
    return int(problem.weight.size // problem.blocks.shape[-1])


def proofs(solver: Solver, info: Sequence[Mapping[str, Any]]) -> list[bool] | None:
    """For each row, whether the solver has proved its state; None if it proves nothing.

    Only `exact` proves; what others remark is not looked at.
    """
    if not isinstance(solver, Exact):
        return None
    return [bool(flag) for remarks in info for flag in remarks.get("proved", ())]


def _own_states(problem: RoundingProblem, states: ArrayLike) -> States:
    """States [rows, n], which are checked to be the problem's."""
    x = binary("states", states)
    if x.shape != problem.weight.shape:
        raise InputError(
            f"states must have shape {problem.weight.shape}, not {x.shape}"
        )
    if problem.fixed is not None:
        moved = (problem.fixed >= 0) & (problem.fixed != x)
        if moved.any():
            row, column = np.argwhere(moved)[0]
            raise InputError(
                f"states[{row}, {column}] is {x[row, column]}, but that weight is "
                "pinned to the end of the grid"
            )
    return x.reshape(count_rows(problem), -1)


def _below(energy: float, other: float) -> bool:
    return energy < other - BETTER * abs(other)


def _same(energy: float, other: float) -> bool:
    return math.isclose(energy, other, rel_tol=SAME)


def _about(problem: RoundingProblem) -> dict[str, Any]:
    about = {key: problem.meta[key] for key in (*ORIGIN, *ABOUT) if key in problem.meta}
    return about | {"saturated": problem.saturated}


def _format(entries: Mapping[str, Entry]) -> Iterator[str]:
    """The parts of the file, with a line for each row."""
    yield f'{{\n"format": {FORMAT},\n"problems": {{\n'
    for at, (key, entry) in enumerate(sorted(entries.items(), key=_place)):
        yield ",\n" if at else ""
        about = json.dumps(entry.about, sort_keys=True)
        yield f'"{key}": {{\n "about": {about},\n "n": {entry.n},\n "rows": [\n'
        lines = []
        for row, best in sorted(entry.rows.items()):
            packed = np.packbits(best.states, bitorder="little")
            held = {
                "row": row,
                "energy": best.energy,
                "states": b64encode(packed.tobytes()).decode(),
                "solver": best.solver,
                "proved": best.proved,
                "when": best.when,
            }
            lines.append("  " + json.dumps(held))
        yield ",\n".join(lines) + "\n ]\n}"
    yield "\n}\n}\n"


def _place(item: tuple[str, Entry]) -> tuple[str, int, str]:
    key, entry = item
    return str(entry.about.get("layer", "")), -int(entry.about.get("bits", 0)), key


def _parse(content: Any) -> dict[str, Entry]:
    if not isinstance(content, dict) or "format" not in content:
        raise InputError("this is not a registry")
    if content["format"] != FORMAT:
        raise InputError(f"the registry has format {content['format']!r}, not {FORMAT}")
    problems = content.get("problems")
    if not isinstance(problems, dict):
        raise InputError("the registry has no problems")
    return {key: _parse_entry(key, value) for key, value in problems.items()}


def _parse_entry(key: str, value: Any) -> Entry:
    if not isinstance(value, dict) or not isinstance(value.get("about"), dict):
        raise InputError(f"problem {key} says nothing about itself")
    n, rows = value.get("n"), value.get("rows")
    if not is_whole(n) or n < 1 or not isinstance(rows, list):
        raise InputError(f"problem {key} needs n and rows")
    entry = Entry(n=n, about=value["about"])
    for held in rows:
        row = held.get("row") if isinstance(held, dict) else None
        if not is_whole(row) or row < 0 or row in entry.rows:
            raise InputError(f"problem {key} has a row without a number of its own")
        try:
            entry.rows[row] = _parse_row(held, n)
        except InputError as error:
            raise InputError(f"problem {key}, row {row}: {error}") from error
    return entry


def _parse_row(held: Mapping[str, Any], n: int) -> Best:
    energy = held.get("energy")
    if not is_number(energy) or not math.isfinite(energy):
        raise InputError("energy must be a finite number")
    for name, kind in KINDS.items():
        if not isinstance(held.get(name), kind):
            raise InputError(f"{name} must be a {kind.__name__}")
    try:
        packed = np.frombuffer(b64decode(held["states"], validate=True), np.uint8)
    except ValueError as error:
        raise InputError("states are not base64") from error
    if len(packed) != -(-n // 8):
        raise InputError(f"states must be {n} bits")
    return Best(
        energy=float(energy),
        states=np.unpackbits(packed, count=n, bitorder="little"),
        solver=held["solver"],
        proved=held["proved"],
        when=held["when"],
    )
