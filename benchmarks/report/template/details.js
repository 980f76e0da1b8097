// The sections that look closer: profiles, accuracy, rows, weights, failures.

function drawProfiles(view) {
  const bar = controls("profiles");
  control(bar, "gap", "Target", GAP_NAMES.map((name, i) => [String(i), `gap ${name}`]));
  const g = Number(state.gap);
  const host = body("profiles");
  const mine = targets.filter((t) => t.gap === g && view.inView(t));
  const among = view.problems.filter((p) => mine.some((t) => t.problem === p));
  const times = mine.flatMap((t) => t.times.filter((time) => time > 0));
  if (!times.length) {
    nothing(host, `No run in the selection reaches a gap of ${GAP_NAMES[g]}.`);
  } else {
    const series = view.answering
      .map((s) => ({ solver: s, points: dataProfile(mine.filter((t) => t.solver === s), among.length) }))
      .filter((each) => mine.some((t) => t.solver === each.solver));
    const figure = html("figure", {}, html("figcaption", {}, `Data profile: share of runs at a gap of ${GAP_NAMES[g]}`));
    const inside = html("div", { class: "plot" });
    figure.append(inside);
    host.append(figure);
    profileChart(inside, {
      title: `Share of runs that have reached a gap of ${GAP_NAMES[g]} against seconds`,
      description: series
        .map((each) => `${names[each.solver]}: ${Math.round(100 * (each.points.at(-1)?.[1] ?? 0))} %`)
        .join(", "),
      series,
      xLabel: "seconds",
      yLabel: "share of runs, problems weighted alike",
      unit: "s",
      low: Math.min(...times) / 1.3,
      high: Math.max(...times) * 1.3,
      names,
    });
    profileNumbers(figure, series, "s");
  }
  drawPair(host, view, g, among);
  drawTests(view);
}

// Tests are computed over the whole store: only the solvers' filter applies.
function drawTests(view) {
  const signed = (value) => (value === null ? "–" : `${value > 0 ? "+" : value < 0 ? "−" : ""}${percent(Math.abs(value))}`);
  tableOf(document.getElementById("all-pairs"), {
    id: "pairs",
    caption:
      `${names[0]} against each other solver, on all problems of the store: final gaps with the longest budget, ` +
      "in pairs of the same problem and seed; the test counts a layer as one pair, p is adjusted by Holm's method",
    order: state.order.pairs,
    sort: sortTable,
    rows: objects(data.pairs).filter((row) => view.solvers.includes(row.solver)),
    empty: "No pairs of runs to compare.",
    columns: [
      solverColumn,
      { key: "runs", title: "Pairs", numeric: true, value: (row) => row.runs },
      { key: "wins", title: `${names[0]} better`, numeric: true, value: (row) => row.wins },
      { key: "ties", title: "Level", numeric: true, value: (row) => row.ties },
      { key: "losses", title: "Worse", numeric: true, value: (row) => row.losses },
      {
        key: "difference",
        title: "Mean difference of gaps",
        numeric: true,
        value: (row) => row.difference,
        show: (row) => [
          signed(row.difference),
          html("small", {}, ` [${signed(row.low)}, ${signed(row.high)}]`),
        ],
      },
      { key: "effect", title: "Effect", numeric: true, value: (row) => row.effect },
      { key: "p", title: "p", numeric: true, value: (row) => row.p },
    ],
  });
}

function dataProfile(mine, count) {
  const events = mine
    .flatMap((t) => t.times.filter((time) => time > 0).map((time) => [time, 1 / (t.of * count)]))
    .toSorted((a, b) => a[0] - b[0]);
  let share = 0;
  return events.map(([time, part]) => [time, (share += part)]);
}

function profileNumbers(figure, series, unit) {
  const levels = [0.25, 0.5, 0.75, 0.95];
  const what = (value) => (value === undefined ? "–" : unit === "s" ? seconds(value) : significant(value, 3));
  numbersOf(
    figure,
    unit === "s" ? "Seconds until a share of the runs is there" : "Factor within which a share of the runs is",
    ["Solver", ...levels.map((level) => `${level * 100} %`), "in the end"],
    () =>
      series.map((each) => [
        names[each.solver],
        ...levels.map((level) => what(each.points.find(([, share]) => share >= level - 1e-9)?.[0])),
        `${Math.round(100 * (each.points.at(-1)?.[1] ?? 0))} %`,
      ]),
  );
}

// Of three solvers a performance profile gives no ranking, so it compares two.
function drawPair(host, view, g, among) {
  const figure = html("figure", {}, html("figcaption", {}, `Performance profile of two solvers, to a gap of ${GAP_NAMES[g]}`));
  const bar = html("div", { class: "controls", id: "controls-pair" });
  const choices = view.answering.map((s) => [solvers[s].label, names[s]]);
  figure.append(bar);
  host.append(figure);
  if (choices.length < 2) {
    nothing(figure, "Select two solvers to compare them.");
    return;
  }
  // A solver that is filtered away gives its place to the first that is not.
  const chosen = [state.a, state.b].map((label) => view.answering.find((s) => solvers[s].label === label));
  const first = chosen[0] ?? view.answering.find((s) => s !== chosen[1]);
  const second = chosen[1] ?? view.answering.find((s) => s !== first);
  const pair = [first, second];
  ["a", "b"].forEach((name, i) => {
    control(bar, name, i ? "with" : "Compare", choices);
    bar.querySelectorAll("select")[i].value = solvers[pair[i]].label;
  });
  const races = among.flatMap((p) => {
    const [one, two] = pair.map((s) =>
      targets.find((t) => t.problem === p && t.solver === s && t.gap === g),
    );
    if (!one || !two) return [];
    // 0: no run with this seed; null: it missed the target.
    return one.times
      .map((time, i) => [time, two.times[i]])
      .filter(([time, other]) => time !== 0 && other !== 0 && other !== undefined);
  });
  const won = races.filter((race) => race.some((time) => time !== null));
  if (!won.length || first === second) {
    nothing(figure, first === second ? "Choose two different solvers." : "Neither reaches the target on a seed that both have run.");
    return;
  }
  const series = pair.map((solver, i) => {
    const factors = won
      .filter((race) => race[i] !== null)
      .map((race) => race[i] / Math.min(...race.filter((time) => time !== null)))
      .toSorted((a, b) => a - b);
    return { solver, points: factors.map((factor, k) => [factor, (k + 1) / races.length]) };
  });
  const inside = html("div", { class: "plot" });
  figure.append(inside);
  const most = Math.max(...series.flatMap((each) => each.points.map(([factor]) => factor)), 2);
  const wins = pair.map((_, i) => won.filter((race) => race[i] !== null && (race[1 - i] === null || race[i] < race[1 - i])).length);
  const words = `${races.length} pairs of runs (same problem, same seed): ${names[first]} is first in ${wins[0]}, ${names[second]} in ${wins[1]}; in ${races.length - won.length} neither arrives.`;
  profileChart(inside, {
    title: `${names[first]} and ${names[second]}: share of runs within a factor of the faster`,
    description: words,
    series,
    xLabel: "times as long as the faster of the two",
    yLabel: "share of pairs",
    unit: "",
    low: 1,
    high: most * 1.2,
    names,
  });
  figure.append(html("p", { class: "words" }, words));
  profileNumbers(figure, series, "");
}

function drawAccuracy(view) {
  const bar = controls("accuracy");
  const host = body("accuracy");
  if (!data.scores.names.length) {
    nothing(host, "No run in this store has a score: scores come with runs on a network and images, such as top-1 accuracy.");
    return;
  }
  control(bar, "score", "Score", data.scores.names.map((name) => [name, name]));
  const column = data.scores.names.indexOf(state.score);
  const scored = data.scores.points
    .map(([problem, solver, budget, gap, ...values]) => ({
      problem,
      solver,
      values,
      ratio: toRatio(problems[problem], gap),
      score: values[column] ?? null,
    }))
    .filter(view.inView);
  drawScores(view, scored);
  const points = scored.filter((point) => point.score !== null && point.ratio > 0);
  const drawn = view.problems.filter((p) => points.some((point) => point.problem === p));
  if (!drawn.length) {
    nothing(host, "No run in the selection has this score and an error.");
    return;
  }
  multiples("accuracy", host, drawn, titleOf, (p, inside, figure) => {
    const mine = points.filter((point) => point.problem === p);
    scatterChart(inside, {
      title: `${titleOf(p)}: error against ${state.score}`,
      points: mine,
      xLabel: "error as a ratio to nearest",
      yLabel: state.score,
      names,
    });
    numbersOf(figure, `${titleOf(p)}: error and ${state.score}`, ["Solver", "Ratio to nearest", state.score], () =>
      mine.map((point) => [names[point.solver], ratio(point.ratio), significant(point.score, 4)]),
    );
  });
  host.append(keyOf(view));
}

function drawScores(view, scored) {
  const rows = view.problems.flatMap((problem) =>
    view.solvers
      .map((solver) => {
        const mine = scored.filter((point) => point.problem === problem && point.solver === solver);
        const mean = (column) => {
          const values = mine.map((point) => point.values[column]).filter((value) => value !== null);
          return values.length ? values.reduce((a, b) => a + b) / values.length : null;
        };
        return { problem, solver, runs: mine.length, means: data.scores.names.map((_, i) => mean(i)) };
      })
      .filter((row) => row.runs),
  );
  tableOf(document.getElementById("all-scores"), {
    id: "scores",
    caption: "Scores, means over the scored runs of all budgets",
    order: state.order.scores,
    sort: sortTable,
    rows,
    empty: "No scores in the selection.",
    columns: [
      problemColumn,
      solverColumn,
      { key: "runs", title: "Runs", numeric: true, value: (row) => row.runs },
      ...data.scores.names.map((name, i) => ({
        key: `s${i}`,
        title: name,
        numeric: true,
        value: (row) => row.means[i],
        show: (row) => (row.means[i] === null ? "–" : significant(row.means[i], 4)),
      })),
    ],
  });
}

function drawRows(view) {
  const host = body("rows");
  const parts = data.rows.filter((part) => view.problems.includes(part.problem));
  const linesOf = (part) => {
    const lines = part.solvers
      .filter((each) => view.solvers.includes(each.solver))
      .toSorted((a, b) => a.solver - b.solver)
      .map((each) => ({ label: names[each.solver], values: each.gaps }));
    if (lines.length && part.bounds) lines.push({ label: "bound", values: part.bounds });
    return lines;
  };
  const some = parts.filter((part) => linesOf(part).length);
  if (!some.length) nothing(host, "No run in the selection keeps its rows.");
  else {
    host.append(
      html(
        "div",
        { class: "key shades" },
        ...SHADES.map((text, i) =>
          html(
            "span",
            {},
            svg("svg", { width: 14, height: 14, "aria-hidden": "true" }, svg("rect", { width: 14, height: 14, class: `shade s${i}` })),
            text,
          ),
        ),
      ),
    );
  }
  multiples("rows", host, some, (part) => titleOf(part.problem), (part, inside) => {
    const left = Math.min(92, host.clientWidth * 0.26);
    const lines = linesOf(part).map((line) => ({ ...line, label: clip(line.label, left - 8) }));
    rowsChart(inside, { title: `${titleOf(part.problem)}: gap of each row`, lines, left });
  });
  const rows = some.flatMap((part) =>
    part.best.map((best, row) => ({
      problem: part.problem,
      row,
      best,
      bound: part.bounds ? part.lower[row] : null,
      gaps: part.solvers
        .filter((each) => view.solvers.includes(each.solver))
        .map((each) => ({ solver: each.solver, gap: each.gaps[row] }))
        .filter((each) => each.gap !== null)
        .toSorted((a, b) => a.gap - b.gap),
    })),
  );
  const show = (value) => (value === null ? "–" : significant(value, 6));
  tableOf(document.getElementById("all-rows"), {
    id: "rows",
    caption: "Rows: best known energy, certified bound, and who comes nearest and stays farthest",
    order: state.order.rows,
    sort: sortTable,
    rows,
    empty: "No rows to list.",
    columns: [
      problemColumn,
      { key: "row", title: "Row", numeric: true, value: (row) => row.row },
      { key: "best", title: "Best known", numeric: true, value: (row) => row.best, show: (row) => show(row.best) },
      { key: "bound", title: "Lower bound", numeric: true, value: (row) => row.bound, show: (row) => show(row.bound) },
      {
        key: "first",
        title: "Nearest",
        value: (row) => row.gaps[0]?.gap ?? null,
        show: (row) => (row.gaps.length ? [...withSwatch(row.gaps[0].solver), html("small", {}, ` ${percent(row.gaps[0].gap)}`)] : "–"),
      },
      {
        key: "last",
        title: "Farthest",
        value: (row) => row.gaps.at(-1)?.gap ?? null,
        show: (row) =>
          row.gaps.length ? [...withSwatch(row.gaps.at(-1).solver), html("small", {}, ` ${percent(row.gaps.at(-1).gap)}`)] : "–",
      },
    ],
  });
}

function drawWeights(view) {
  const bar = controls("weights");
  const host = body("weights");
  if (!data.weights.length) {
    nothing(host, data.noWeights);
    return;
  }
  const has = view.solvers.filter((s) => data.weights.some((w) => w.solver === s && view.problems.includes(w.problem)));
  if (!has.length) {
    nothing(host, "No answer in the selection whose problem is at hand.");
    return;
  }
  control(bar, "of", "Answer of", has.map((s) => [solvers[s].label, names[s]]));
  const chosen = has.find((s) => solvers[s].label === state.of) ?? has[0];
  bar.querySelector("select").value = solvers[chosen].label;
  const some = data.weights.filter((w) => w.solver === chosen && view.problems.includes(w.problem));
  multiples("weights", host, some, (w) => titleOf(w.problem), (w, inside, figure) => {
    const share = `${((100 * w.other) / Math.max(w.free, 1)).toFixed(1)} %`;
    const beyond = w.beyond ? ` ${w.beyond.toLocaleString("en")} went beyond both grid points.` : "";
    const pinned = w.fixed ? ` ${w.fixed.toLocaleString("en")} weights beyond the grid are pinned and left out.` : "";
    const words = `${w.other.toLocaleString("en")} of ${w.free.toLocaleString("en")} weights (${share}) go the other way than to nearest.${beyond}${pinned}`;
    weightsChart(inside, {
      title: `${titleOf(w.problem)}: weights before and after rounding by ${names[chosen]}`,
      description: words,
      up: w.up,
      down: w.down,
    });
    figure.append(html("p", { class: "words" }, words));
    numbersOf(figure, `${titleOf(w.problem)}: weights by place between the grid points`, ["Place", "Up", "Down"], () =>
      w.up.map((count, i) => [
        `${(i / w.up.length).toFixed(2)} to ${((i + 1) / w.up.length).toFixed(2)}`,
        count.toLocaleString("en"),
        w.down[i].toLocaleString("en"),
      ]),
    );
  });
}

function drawFailures(view) {
  const rows = objects(data.failures).filter(view.inView);
  const counts = view.solvers.map((solver) => {
    const mine = cells.filter((cell) => cell.solver === solver && view.problems.includes(cell.problem));
    const runs = mine.reduce((sum, cell) => sum + cell.runs, 0);
    const of = (status) => rows.filter((f) => f.solver === solver && f.status === status).reduce((sum, f) => sum + f.count, 0);
    return { solver, runs, ok: mine.reduce((sum, cell) => sum + cell.ok, 0), of };
  });
  tableOf(document.getElementById("statuses"), {
    id: "statuses",
    caption: "How runs ended, by solver",
    order: state.order.statuses,
    sort: sortTable,
    rows: counts.filter((row) => row.runs),
    columns: [
      solverColumn,
      { key: "runs", title: "Runs", numeric: true, value: (row) => row.runs },
      { key: "ok", title: "ok", numeric: true, value: (row) => row.ok },
      ...data.faults.map((status) => ({
        key: status,
        title: status,
        numeric: true,
        value: (row) => row.of(status),
        show: (row) => (row.of(status) ? html("strong", {}, String(row.of(status))) : html("span", { class: "zero" }, "0")),
      })),
    ],
  });
  tableOf(document.getElementById("all-failures"), {
    id: "failures",
    caption: "What went wrong",
    order: state.order.failures,
    sort: sortTable,
    rows,
    empty: "Every run in the selection ended with an answer that bears out its claim.",
    columns: [
      { key: "status", title: "Status", value: (row) => row.status },
      solverColumn,
      problemColumn,
      { key: "budget", title: "Budget", numeric: true, value: (row) => row.budget, show: (row) => budgets[row.budget].label },
      { key: "count", title: "Runs", numeric: true, value: (row) => row.count },
      { key: "message", title: "Message", wide: true, value: (row) => row.message },
    ],
  });
}
