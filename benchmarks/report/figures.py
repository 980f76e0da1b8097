"""The figures as files, for papers and slides."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness.figures import save, style

# The page's own: colours that differ for all kinds of colour vision, with dashes and
# markers that differ without colour.
COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#b65a8c",
    "#c98a00",
    "#3f9fd8",
    "#2b2b2b",
    "#8a7b1f",
)
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 2)), (0, (6, 2, 1, 2)))
MARKERS = "os^Dvx+"
SUFFIXES = (".svg", ".png")
# Problems that are drawn, and solvers in each figure.
MOST_DRAWN, LINES = 12, 12

Draw = Callable[[Any, int], bool]


def draw(folder: Path, content: Mapping[str, Any]) -> list[str]:
    """Draw each problem's figures; return the names of the files.

    Raises
    ------
    InputError
        A file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    written = []
    with style():
        for name, number, one in _figures(content):
            figure = Figure(figsize=(4.8, 3.2))
            FigureCanvasAgg(figure)
            figure.subplots_adjust(0.14, 0.14, 0.97, 0.93)
            if one(figure.add_subplot(), number):
                for suffix in SUFFIXES:
                    save(folder / f"{name}{suffix}", figure)
                    written.append(f"{name}{suffix}")
    return written


def _figures(content: Mapping[str, Any]) -> Iterator[tuple[str, int, Draw]]:
    kinds: dict[str, Draw] = {
        "anytime": lambda ax, number: _anytime(ax, content, number),
        "targets": lambda ax, number: _targets(ax, content, number),
        "weights": lambda ax, number: _weights(ax, content, number),
    }
    for kind, one in kinds.items():
        for number, problem in enumerate(content["problems"][:MOST_DRAWN]):
            title = re.sub(r"[^\w.]+", "-", problem["title"]).strip("-")[:80]
            yield f"{kind}-{number + 1}-{title}", number, one


def _look(solver: int) -> dict[str, Any]:
    return {
        "color": COLOURS[solver % len(COLOURS)],
        "linestyle": DASHES[(solver + solver // len(COLOURS)) % len(DASHES)],
    }


def _anytime(ax: Any, content: Mapping[str, Any], number: int) -> bool:
    """Gap against seconds, with quartiles."""
    import numpy as np

    curves = [c for c in content["curves"] if c["problem"] == number][:LINES]
    # Curves begin long before anything happens, and hold what they have at the end.
    times = [t for curve in curves for t in curve["t"][1:]]
    for curve in curves:
        seconds = [*curve["t"], max([*times, curve["t"][-1]])]
        low, median, high = (
            np.array([*curve[key], curve[key][-1]], float)
            for key in ("low", "median", "high")
        )
        name = content["solvers"][curve["solver"]]["short"]
        look = _look(curve["solver"])
        ax.step(seconds, median, where="post", label=name, lw=1.2, **look)
        shade = {"color": look["color"], "alpha": 0.15, "lw": 0}
        ax.fill_between(seconds, low, high, step="post", **shade)
    if not curves:
        return False
    _seconds(ax)
    if times:
        ax.set_xlim(min(times) / 1.3, max(times))
    ax.set_ylabel("gap to best known")
    ax.set_yscale("symlog", linthresh=1e-4)
    ax.yaxis.set_major_formatter(lambda gap, _: f"{100 * gap:g} %")
    ax.set_ylim(bottom=0)
    _finish(ax, content, number)
    return True


def _targets(ax: Any, content: Mapping[str, Any], number: int) -> bool:
    """Share of the runs at a gap of 1 % against seconds."""
    fields = content["targets"]["fields"]
    lines = [
        dict(zip(fields, line, strict=True)) for line in content["targets"]["lines"]
    ]
    drawn = False
    for line in lines:
        if line["problem"] != number or line["gap"] != 1 or line["solver"] >= LINES:
            continue
        times = sorted(t for t in line["times"] if t)
        if times:
            shares = [(i + 1) / line["of"] for i in range(len(times))]
            name = content["solvers"][line["solver"]]["short"]
            marker = MARKERS[line["solver"] % len(MARKERS)]
            look = _look(line["solver"])
            ax.step(
                times, shares, where="post", marker=marker, ms=3, label=name, **look
            )
            drawn = True
    if drawn:
        _seconds(ax)
        ax.set_ylabel("share of runs at a gap of 1 %")
        ax.set_ylim(0, 1.03)
        _finish(ax, content, number)
    return drawn


def _weights(ax: Any, content: Mapping[str, Any], number: int) -> bool:
    """Weights by their place between two grid points, up and down."""
    import numpy as np

    found = [w for w in content["weights"] if w["problem"] == number]
    if not found:
        return False
    best = min(found, key=lambda w: int(w["solver"]))
    bins = len(best["up"])
    middle = (np.arange(bins) + 0.5) / bins
    other = COLOURS[0]
    for counts, sign, away in (
        (best["up"], 1, middle < 0.5),
        (best["down"], -1, middle > 0.5),
    ):
        colours = np.where(away, other, "#b9c3cf")
        ax.bar(middle, sign * np.array(counts), 0.9 / bins, color=colours)
    ax.axhline(0, color="black", lw=0.6)
    ax.yaxis.set_major_formatter(lambda count, _: f"{abs(count):g}")
    ax.spines[["top", "right"]].set_visible(False)
    ax.set(
        xlabel="before: place between the grid points",
        ylabel="weights: up above, down below the line",
    )
    name = content["solvers"][best["solver"]]["short"]
    ax.set_title(f"{content['problems'][number]['title']}: {name}", fontsize=8)
    return True


def _seconds(ax: Any) -> None:
    """A logarithmic axis, with plain numbers."""
    ax.set(xscale="log", xlabel="seconds")
    ax.xaxis.set_major_formatter(lambda seconds, _: f"{seconds:g}")
    ax.xaxis.set_minor_formatter(lambda *_: "")


def _finish(ax: Any, content: Mapping[str, Any], number: int) -> None:
    ax.set_title(content["problems"][number]["title"], fontsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=6, ncols=2)
