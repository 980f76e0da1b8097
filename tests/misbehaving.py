"""Solvers that do what no solver should, read as a file by `--solver FILE:Class`."""

from __future__ import annotations

import os
import sys
import warnings
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from solvers import InputError, Solution, Solver


@dataclass(frozen=True, kw_only=True)
class Honest(Solver):
    """The start is the answer."""

    name: ClassVar[str] = "honest"

    def search(self, task: Any) -> Any:
        return task.start


class Raises(Honest):
    def search(self, task):
        raise ValueError("first line\nsecond line")


class RaisesWithoutAWord(Honest):
    def search(self, task):
        raise RuntimeError


class RaisesTheUnprintable(Honest):
    def search(self, task):
        class Unprintable(Exception):
            def __str__(self):
                raise TypeError("no text")

        raise Unprintable


class RefusesTooLate(Honest):
    def search(self, task):
        raise InputError("not\nthis one")


class RaisesAnEssay(Honest):
    def search(self, task):
        raise ValueError("word " * 100_000)


class Exits(Honest):
    def search(self, task):
        sys.exit(0)


class Dies(Honest):
    """Only for a process of its own."""

    def search(self, task):
        os._exit(3)


class ExitsInCompileFor(Honest):
    def compile_for(self, qubo):
        sys.exit("enough")


class RaisesInSupports(Honest):
    def supports(self, qubo):
        raise LookupError("what is a batch?")


class RunsOutOfMemory(Honest):
    def search(self, task):
        raise MemoryError


class NeverReturns(Honest):
    def search(self, task):
        return self.search(task)


class CannotBeMade(Honest):
    def __post_init__(self):
        raise OSError("no\nlicence")


@dataclass(frozen=True, kw_only=True)
class HasOptionsOfNoKind(Honest):
    option: Unknown = None  # type: ignore[name-defined]  # noqa: F821


class DoesNotKnow(Honest):
    @property
    def out_of_set(self):
        return 3


class HasANameOfTwoLines(Honest):
    name = "two\nlines"


class GivesNone(Honest):
    def search(self, task):
        return None


class GivesOneRow(Honest):
    def search(self, task):
        return task.start[0]


class GivesRagged(Honest):
    def search(self, task):
        return [[0], [1, 0]]


class GivesTexts(Honest):
    def search(self, task):
        return np.full(task.start.shape, "up")


class GivesInSearch(Honest):
    """Values that are neither 0 nor 1."""

    value: ClassVar[Any]

    def search(self, task):
        states = task.start.astype(np.result_type(type(self.value)))
        states[0, 0] = self.value
        return states


class Gives257(GivesInSearch):
    value = 257


class GivesMinusOne(GivesInSearch):
    value = -1


class GivesHalf(GivesInSearch):
    value = 0.5


class GivesNaN(GivesInSearch):
    value = np.nan


class Overrides(Honest):
    """Its own solve, which bypasses all checks."""

    def changes(self, found: Solution) -> dict[str, Any]:
        raise NotImplementedError

    def solve(self, *arguments, **named):
        found = super().solve(*arguments, **named)
        return replace(found, **self.changes(found))


class SolvesToNone(Honest):
    def solve(self, *arguments, **named):
        return None


class ClaimsTooMuch(Overrides):
    def changes(self, found):
        return {"energies": found.energies - 1000}


class ClaimsNaN(Overrides):
    def changes(self, found):
        return {"energies": found.energies * np.nan}


class ClaimsForAnotherShape(Overrides):
    def changes(self, found):
        return {"states": found.states[:, :-1]}


class Claims257(Overrides):
    def changes(self, found):
        return {"states": found.states.astype(int) + 256}


class TakesNoTime(Overrides):
    def changes(self, found):
        return {"timing": {"solve": float("nan")}}


class HasNoTrace(Overrides):
    def changes(self, found):
        return {"trace": None}


class HasNoInfo(Overrides):
    def changes(self, found):
        return {"info": None}


class HasAnotherStatus(Overrides):
    def changes(self, found):
        return {"status": object()}


class Remarks(Honest):
    def remarks(self) -> dict[Any, Any]:
        raise NotImplementedError

    def search(self, task):
        task.info.update(self.remarks())
        return task.start


class RemarksNoJson(Remarks):
    def remarks(self):
        return {(1, 2): 3, 4: 5, "nan": float("nan"), "object": object(), "set": {1}}


class RemarksOnItself(Remarks):
    def remarks(self):
        itself: list[Any] = []
        itself.append(itself)
        return {"itself": itself}


class RemarksAtLength(Remarks):
    def remarks(self):
        return {"text": "x" * 10_000_000}


class RemarksFields(Remarks):
    def remarks(self):
        return {"label": "auto", "objective": -1e9, "status": "done", "solver": "auto"}


class RemarksOtherwise(Remarks):
    """What tables look for, of another kind."""

    def remarks(self):
        return {
            "build_seconds": "long",
            "library_seconds": [1],
            "moves": "many",
            "proved": 3,
            "soft_fraction": "all",
        }


class Prints(Honest):
    def search(self, task):
        print("look at me")
        return task.start


class Warns(Honest):
    def search(self, task):
        warnings.warn("two\nlines", stacklevel=2)
        return task.start


class TurnsWarningsIntoErrors(Honest):
    def search(self, task):
        warnings.simplefilter("error")
        return task.start


class RaisesFloatingPoint(Honest):
    def search(self, task):
        np.seterr(all="raise")
        return task.start


class SeedsTheWorld(Honest):
    def search(self, task):
        np.random.seed(0)  # noqa: NPY002
        return task.start


class DeletesItsName(Honest):
    name: ClassVar[str] = "gone"

    def search(self, task):
        del type(self).name
        return task.start


class RenamesItself(Honest):
    def search(self, task):
        object.__setattr__(self, "name", "two\nlines")
        object.__setattr__(self, "polish", object())
        return task.start


class GivesTheStart(Honest):
    """A view of the start, changed after it was handed over."""

    def search(self, task):
        view = task.start[:]
        task.monitor.report(task.qubo.energies(view))
        return view


class Changes(Honest):
    """Changes what it is given, in place; arrays of a batch are read-only."""

    field: ClassVar[str]

    def search(self, task):
        array = task.start if self.field == "start" else getattr(task.qubo, self.field)
        array[...] = 1
        return task.start


class ChangesH(Changes):
    field = "H"


class ChangesLinear(Changes):
    field = "linear"


class ChangesOffset(Changes):
    field = "offset"


class ChangesScale(Changes):
    field = "scale"


class ChangesPrior(Changes):
    field = "prior"


class ChangesPins(Changes):
    field = "fixed"


class ChangesLevels(Changes):
    field = "levels"


class ChangesStart(Changes):
    field = "start"
