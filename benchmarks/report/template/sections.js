// The sections of results, each drawn from what is selected.

// Small pictures that are drawn at first; a button draws the others.
const FIRST = 12;
const open = new Set();

function body(name) {
  const host = document.querySelector(`#${name} .body`);
  host.replaceChildren();
  return host;
}

function controls(name) {
  const host = document.getElementById(`controls-${name}`);
  host.replaceChildren();
  return host;
}

function nothing(host, text) {
  host.append(html("p", { class: "empty" }, text));
}

function multiples(name, host, items, title, drawEach) {
  const grid = html("div", { class: "multiples" });
  host.append(grid);
  const some = open.has(name) ? items : items.slice(0, FIRST);
  for (const item of some) {
    const figure = html("figure", { "aria-label": title(item) }, html("figcaption", {}, title(item)));
    const inside = html("div", { class: "plot" });
    figure.append(inside);
    grid.append(figure);
    drawEach(item, inside, figure);
  }
  if (some.length < items.length) host.append(moreOf(name, `Show all ${items.length} plots`));
}

function moreOf(name, text) {
  const more = () => {
    open.add(name);
    draw();
  };
  return html("button", { type: "button", class: "more", onclick: more }, text);
}

function clip(text, pixels) {
  const most = Math.max(Math.floor(pixels / 6.6), 2);
  return text.length <= most ? text : `${text.slice(0, most - 1)}…`;
}

// Problems differ at the end of their names: layer and bits.
function clipStart(text, pixels) {
  const most = Math.max(Math.floor(pixels / 6.6), 2);
  return text.length <= most ? text : `…${text.slice(1 - most)}`;
}

const titleOf = (index) => problems[index].title.replace(" bits", `${SPACE}bits`);
const toRatio = (problem, gap) =>
  problem.nearest && gap !== null ? (problem.best + gap * problem.scale) / problem.nearest : null;
const objective = (problem, gap) => (gap === null ? null : problem.best + gap * problem.scale);
const withSwatch = (solver) => [swatch(solver), html("span", { title: solvers[solver].label }, names[solver])];
const solverColumn = {
  key: "solver",
  title: "Solver",
  value: (row) => names[row.solver],
  show: (row) => withSwatch(row.solver),
};
const problemColumn = { key: "problem", title: "Problem", value: (row) => titleOf(row.problem) };

// The cell of each solver on a problem at the budget chosen: the longest it was given,
// or one budget for all.
function cellsAt(problem, view) {
  const here = cells.filter((cell) => cell.problem === problem && view.solvers.includes(cell.solver));
  if (state.budget !== "last") return here.filter((cell) => String(cell.budget) === state.budget);
  return view.solvers.flatMap((s) => here.filter((cell) => cell.solver === s && cell.last));
}

function drawResults(view) {
  const bar = controls("results");
  control(bar, "budget", "Budget", [
    ["last", "the longest of each solver"],
    ...budgets.map((budget, i) => [String(i), budget.label]),
  ]);
  const host = body("results");
  const left = Math.min(230, host.clientWidth * 0.4);
  const lines = view.problems.map((p) => ({
    label: clipStart(titleOf(p), left - 8),
    marks: cellsAt(p, view)
      .filter((cell) => cell.gap !== null)
      .map((cell) => ({ solver: cell.solver, value: cell.gap, name: names[cell.solver] })),
  }));
  const some = lines.filter((line) => line.marks.length);
  if (!some.length) {
    nothing(host, "No answer in the selection: choose more layers, bits or solvers.");
  } else {
    const rows = open.has("results") ? some : some.slice(0, 2 * FIRST);
    const figure = html("figure", { "aria-label": "Gap of every solver on every problem" });
    figure.append(html("figcaption", {}, "Gap to the best known value, median of the seeds"));
    const inside = html("div", { class: "plot" });
    figure.append(inside);
    host.append(figure);
    dotChart(inside, {
      title: "Gap of every solver on every problem",
      description: some
        .map((line) => {
          const [best] = line.marks.toSorted((a, b) => a.value - b.value);
          return `${line.label}: best ${best.name}, ${percent(best.value)}`;
        })
        .join("; "),
      rows,
      xLabel: "gap to best known (100 %: nearest)",
      unit: "%",
      zero: some.some((line) => line.marks.some((mark) => mark.value < 1e-7)),
      left,
      format: percent,
    });
    inside.after(keyOf(view));
    if (rows.length < some.length) host.append(moreOf("results", `Show all ${some.length} problems`));
  }
  drawBest(view);
  const rows = cells.filter(view.inView);
  tableOf(document.getElementById("all-results"), {
    id: "results",
    caption: "Every problem, solver and budget: medians over the seeds",
    order: state.order.results,
    sort: sortTable,
    rows,
    columns: [
      problemColumn,
      solverColumn,
      {
        key: "budget",
        title: "Budget",
        numeric: true,
        value: (row) => row.budget,
        show: (row) => budgets[row.budget].label,
      },
      {
        key: "runs",
        title: "Runs",
        numeric: true,
        value: (row) => row.ok,
        show: (row) => (row.ok === row.runs ? String(row.runs) : html("strong", {}, `${row.ok} of ${row.runs}`)),
      },
      {
        key: "objective",
        title: "Objective",
        numeric: true,
        value: (row) => objective(problems[row.problem], row.gap),
        show: (row) => {
          const value = objective(problems[row.problem], row.gap);
          return value === null ? "–" : significant(value, 6);
        },
      },
      {
        key: "ratio",
        title: "Of nearest",
        numeric: true,
        value: (row) => toRatio(problems[row.problem], row.gap),
        show: (row) => ratio(toRatio(problems[row.problem], row.gap)),
      },
      { key: "gap", title: "Gap", numeric: true, value: (row) => row.gap, show: (row) => percent(row.gap) },
      {
        key: "highest",
        title: "Worst gap",
        numeric: true,
        value: (row) => row.highest,
        show: (row) => percent(row.highest),
      },
      {
        key: "seconds",
        title: "Took",
        numeric: true,
        value: (row) => row.seconds,
        show: (row) => seconds(row.seconds),
      },
    ],
  });
}

// The key of the marks, where no line carries a label.
function keyOf(view) {
  return html("div", { class: "key" }, ...view.answering.map((s) => html("span", {}, ...withSwatch(s))));
}

function drawBest(view) {
  const used = unique(cells.filter(view.inView).map((cell) => cell.budget)).toSorted((a, b) => a - b);
  const bestAt = (problem, budget) => {
    const here = cells.filter(
      (c) => c.problem === problem && c.budget === budget && view.inView(c) && c.gap !== null,
    );
    return here.toSorted((a, b) => a.gap - b.gap)[0] ?? null;
  };
  tableOf(document.getElementById("best-by-budget"), {
    id: "best",
    caption: "Best solver by problem and budget, with its gap",
    order: state.order.best,
    sort: sortTable,
    rows: used.length ? view.problems.map((problem) => ({ problem })) : [],
    columns: [
      problemColumn,
      {
        key: "size",
        title: "Rows × weights",
        numeric: true,
        value: (row) => problems[row.problem].rows * problems[row.problem].n,
        show: (row) => `${problems[row.problem].rows} × ${problems[row.problem].n}`,
      },
      ...used.map((budget) => ({
        key: `b${budget}`,
        title: budgets[budget].label,
        value: (row) => bestAt(row.problem, budget)?.gap ?? null,
        show: (row) => {
          const cell = bestAt(row.problem, budget);
          if (cell === null) return "–";
          return [...withSwatch(cell.solver), html("small", {}, ` ${percent(cell.gap)}`)];
        },
      })),
    ],
  });
}

function drawAnytime(view) {
  const bar = controls("anytime");
  control(bar, "measure", "Show", [
    ["gap", "gap to best known"],
    ["ratio", "ratio to nearest"],
  ]);
  const isRatio = state.measure === "ratio";
  const host = body("anytime");
  const drawn = view.problems.filter((p) =>
    data.curves.some((c) => c.problem === p && view.solvers.includes(c.solver)),
  );
  if (!drawn.length) {
    nothing(host, "No run in the selection reported its progress.");
    return;
  }
  multiples("anytime", host, drawn, titleOf, (p, inside, figure) => {
    const problem = problems[p];
    const useRatio = isRatio && problem.nearest;
    const convert = useRatio ? (gap) => toRatio(problem, gap) : (gap) => gap;
    const curves = data.curves
      .filter((c) => c.problem === p && view.solvers.includes(c.solver))
      .map((c) => ({
        ...c,
        median: c.median.map(convert),
        low: c.low.map(convert),
        high: c.high.map(convert),
      }));
    const dots = cells
      .filter((c) => c.problem === p && view.solvers.includes(c.solver) && c.gap !== null && c.seconds > 0)
      .map((c) => ({ solver: c.solver, t: c.seconds, value: convert(c.gap) }));
    const format = useRatio ? ratio : percent;
    anytimeChart(inside, {
      title: `${problem.title}: error against seconds`,
      curves,
      dots,
      names,
      format,
      isRatio: Boolean(useRatio),
      label: useRatio ? "error as a ratio to nearest" : "gap to best known",
    });
    numbersOf(
      figure,
      `${problem.title}: median after`,
      ["Solver", "Seconds", "Median", "Low", "High"],
      () =>
        curves.flatMap((c) =>
          c.t.map((t, i) => [names[c.solver], seconds(t), format(c.median[i]), format(c.low[i]), format(c.high[i])]),
        ),
    );
  });
}

function drawTargets(view) {
  const host = body("targets");
  const rows = targets.filter(view.inView);
  const drawn = view.problems.filter((p) => rows.some((t) => t.problem === p));
  if (!drawn.length) nothing(host, "No target can be computed for the selection.");
  multiples("targets", host, drawn, titleOf, (p, inside) => {
    const left = Math.min(92, host.clientWidth * 0.26);
    const lines = view.answering
      .map((s) => {
        const mine = rows.filter((t) => t.problem === p && t.solver === s);
        const reached = mine.filter((t) => t.median !== null);
        const missed = mine.filter((t) => t.median === null).map((t) => GAP_NAMES[t.gap]);
        return {
          label: clip(names[s], left - 8),
          joined: true,
          any: mine.length,
          note: missed.length === GAPS.length ? "reaches none of the targets" : "",
          marks: distinct(
            reached.map((t) => ({
              solver: s,
              value: t.median,
              text: GAP_NAMES[t.gap].split(SPACE)[0],
              name: `${names[s]}, gap ${GAP_NAMES[t.gap]}, ${t.reached} of ${t.of} seeds`,
            })),
          ),
        };
      })
      .filter((line) => line.any);
    dotChart(inside, {
      title: `${titleOf(p)}: time to target`,
      description: lines
        .map((l) => `${l.label}: ${l.marks.map((m) => `gap ${m.text} % in ${seconds(m.value)}`).join(", ") || "none"}`)
        .join("; "),
      rows: lines,
      xLabel: "seconds; in the marks: gap in %",
      unit: "s",
      zero: false,
      left,
      format: seconds,
    });
  });
  const byPair = view.problems.flatMap((problem) =>
    view.answering
      .map((solver) => ({
        problem,
        solver,
        gaps: GAPS.map((_, g) => rows.find((t) => t.problem === problem && t.solver === solver && t.gap === g)),
      }))
      .filter((row) => row.gaps.some(Boolean)),
  );
  tableOf(document.getElementById("all-targets"), {
    id: "targets",
    caption: "Median time to each gap [95 % interval], and how many runs reached it where not all did",
    order: state.order.targets,
    sort: sortTable,
    rows: byPair,
    columns: [
      problemColumn,
      solverColumn,
      ...GAPS.map((_, g) => ({
        key: `g${g}`,
        title: GAP_NAMES[g],
        numeric: true,
        value: (row) => row.gaps[g]?.median ?? null,
        show: (row) => {
          const t = row.gaps[g];
          if (!t) return "–";
          const of = t.reached === t.of ? "" : ` ${t.reached} of ${t.of}`;
          if (t.median === null) return html("small", {}, t.reached ? of : "missed");
          return [seconds(t.median), html("small", {}, ` ${interval(t.low, t.high, t.median)}${of}`)];
        },
      })),
    ],
  });
}

// Of gaps reached at almost the same time the hardest stands for the others.
function distinct(marks) {
  return marks.filter((mark, i) => {
    const next = marks[i + 1];
    return !next || next.value > mark.value * 1.35;
  });
}
