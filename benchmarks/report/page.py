"""The page: the template filled with words, numbers, styles and scripts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from benchmarks.report.answers import Answers
from benchmarks.report.cells import Overview
from benchmarks.report.content import as_json, cuts
from benchmarks.report.words import limits, spans, summary

TEMPLATE = files("benchmarks.report") / "template"
# In the order in which they run.
SCRIPTS = (
    "drawing.js",
    "charts.js",
    "tables.js",
    "view.js",
    "sections.js",
    "details.js",
    "page.js",
)


def render(
    name: str,
    known: Overview,
    answers: Answers,
    numbers: Mapping[str, Any],
    figures: list[str],
) -> str:
    """The page as text.

    Parameters
    ----------
    name
        What is reported on: the store's name.
    known, answers
        What there is.
    numbers
        What the page draws: `content.content`.
    figures
        Names of the files with figures beside the page.
    """
    from jinja2 import Environment, StrictUndefined

    maker = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    began = known.table["began"][known.shown()]
    page: str = maker.from_string(_part("page.html")).render(
        name=name,
        summary=summary(known),
        limits=[*limits(known, answers), *cuts(known, answers, numbers)],
        budgets=spans(known),
        began=[stamp[:10] for stamp in (min(began), max(began))],
        environments=[
            {"runs": runs, "lines": facts(environment)}
            for environment, runs in answers.environments
        ],
        codes=sorted({cell.code for cell in known.cells}),
        threads=sorted({threads for *_, threads in known.budgets}),
        figures=figures,
        style=_part("style.css"),
        script="\n".join(_part(script) for script in SCRIPTS),
        data=as_json(numbers),
    )
    return page


def facts(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values of an environment; a mapping in it is one value."""
    lines = []
    for name, value in environment.items():
        if isinstance(value, Mapping):
            there = {key: v for key, v in value.items() if v is not None}
            value = ", ".join(f"{key} {v}" for key, v in there.items())
        elif not isinstance(value, str):
            value = json.dumps(value, default=str)
        lines.append((name.replace("_", " "), value))
    return lines


def _part(name: str) -> str:
    return (TEMPLATE / name).read_text("utf-8")
