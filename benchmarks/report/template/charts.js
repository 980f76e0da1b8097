// The kinds of plots. Each takes the element to draw into and the numbers to draw.

const STEPS = [0.001, 0.01, 0.1, 1];

function atOrBefore(curve, time) {
  let found = -1;
  while (found + 1 < curve.t.length && curve.t[found + 1] <= time) found++;
  return found;
}

function steps(curve, values, x, y, end) {
  const parts = [];
  values.forEach((value, i) => {
    if (value === null) return;
    const height = y(value).toFixed(1);
    parts.push(`${parts.length ? "H" : "M"}${x(curve.t[i]).toFixed(1)}`);
    parts.push(parts.length > 1 ? `V${height}` : `,${height}`);
  });
  return parts.length ? `${parts.join("")}H${end.toFixed(1)}` : "";
}

function band(curve, low, high, x, y, end) {
  const upper = [];
  const lower = [];
  curve.t.forEach((time, i) => {
    if (low[i] === null || high[i] === null) return;
    const until = i + 1 < curve.t.length ? x(curve.t[i + 1]) : end;
    upper.push([x(time), y(high[i])], [until, y(high[i])]);
    lower.push([x(time), y(low[i])], [until, y(low[i])]);
  });
  const corners = [...upper, ...lower.toReversed()];
  return corners.map(([a, b]) => `${a.toFixed(1)},${b.toFixed(1)}`).join(" ");
}

// Error against seconds: a line for each solver with a band over its seeds.

function anytimeChart(host, { title, curves, dots, names, format, label, isRatio }) {
  const narrow = host.clientWidth < 430;
  const on = canvas(host, {
    height: 300,
    margin: { left: 58, right: narrow ? 84 : 104, top: 24, bottom: 42 },
    title,
    description: anytimeWords(curves, names, format),
  });
  // Curves begin long before anything happens: the plot begins where it does.
  const times = [...curves.flatMap((c) => c.t.slice(1)), ...dots.map((d) => d.t)];
  const values = [
    ...curves.flatMap((c) => [...c.median, ...c.low, ...c.high]),
    ...dots.map((d) => d.value),
  ].filter((v) => v > 0);
  const span = [Math.min(...times) / 1.3, Math.max(...times)];
  if (span[0] * 2 > span[1]) span[0] = span[1] / 10;
  const x = logarithmic(span[0], span[1] * 1.02, on.left, on.right, "s");
  const highest = Math.max(...values, isRatio ? 1 : 1e-3);
  let lowest = Math.min(...values, highest / 10);
  if (!isRatio) lowest = Math.max(lowest, 1e-6);
  // What has reached the best known lies on the zero below the logarithmic part.
  const zero = !isRatio && [...curves.flatMap((c) => c.median), ...dots.map((d) => d.value)].some((v) => v !== null && v < lowest);
  const log = logarithmic(lowest / 1.15, highest * 1.15, on.bottom - (zero ? 18 : 0), on.top, isRatio ? "" : "%");
  const y = (value) => (value < lowest / 1.15 ? on.bottom : log(value));
  y.ticks = log.ticks;
  axes(on, x, y, { xLabel: "seconds", yLabel: label, zero });
  const ends = [];
  for (const curve of curves) {
    const kind = `c${curve.solver % 8}`;
    on.picture.append(
      svg("polygon", { points: band(curve, curve.low, curve.high, x, y, on.right), class: `band ${kind}` }),
    );
  }
  for (const curve of curves) {
    const kind = `c${curve.solver % 8}`;
    const last = curve.median.at(-1);
    on.picture.append(
      svg("path", {
        d: steps(curve, curve.median, x, y, on.right),
        class: `line ${kind}`,
        "stroke-dasharray": dashes(curve.solver),
      }),
    );
    if (last !== null) ends.push({ solver: curve.solver, y: y(last) });
  }
  for (const dot of dots) on.picture.append(marker(dot.solver, x(dot.t), y(dot.value), 3.6));
  endLabels(on, ends, names);
  readout(host, on, (pixel) => {
    const time = x.invert(pixel);
    const known = curves
      .map((c) => ({ solver: c.solver, value: c.median[atOrBefore(c, time)] ?? null }))
      .filter((each) => each.value !== null)
      .toSorted((a, b) => a.value - b.value);
    return [
      [html("strong", {}, `after ${seconds(time)}`)],
      ...known.map((each) => [swatch(each.solver), ` ${names[each.solver]} `, html("b", {}, format(each.value))]),
    ];
  });
}

function anytimeWords(curves, names, format) {
  const ends = curves
    .filter((curve) => curve.median.at(-1) !== null)
    .toSorted((a, b) => a.median.at(-1) - b.median.at(-1))
    .map((curve) => `${names[curve.solver]} ${format(curve.median.at(-1))}`);
  return ends.length ? `At the end: ${ends.join(", ")}.` : "No solver has an answer.";
}

// A row for each label; marks along a logarithmic axis, those at zero on its left.

function dotChart(host, { title, description, rows, xLabel, unit, zero, left, format }) {
  const spacing = 24;
  const on = canvas(host, {
    height: 30 + spacing * rows.length + 42,
    margin: { left, right: 22, top: 8, bottom: 42 },
    title,
    description,
  });
  const values = rows.flatMap((row) => row.marks.map((mark) => mark.value)).filter((v) => v > 0);
  const low = Math.max(Math.min(...values, 1), 1e-7);
  const high = Math.max(...values, low * 10);
  const start = on.left + (zero ? 34 : 6);
  const scale = logarithmic(low / 1.2, high * 1.2, start, on.right, unit);
  const x = (value) => (zero && value < low / 1.2 ? on.left + 8 : scale(value));
  x.ticks = zero ? [{ at: 0, text: "0" }, ...scale.ticks] : scale.ticks;
  const place = (i) => on.top + spacing * (i + 0.75);
  const y = () => 0;
  y.ticks = [];
  axes(on, x, y, { xLabel, yLabel: "" });
  for (const { at } of x.ticks) {
    on.picture.append(svg("line", { x1: x(at), x2: x(at), y1: on.top, y2: on.bottom, class: "grid" }));
  }
  rows.forEach((row, i) => {
    const height = place(i);
    on.picture.append(
      svg("line", { x1: on.left, x2: on.right, y1: height, y2: height, class: "grid strong" }),
      svg("text", { x: on.left - 8, y: height + 4, class: "name end" }, row.label),
    );
    if (row.joined && row.marks.length > 1) {
      on.picture.append(
        svg("line", {
          x1: x(Math.min(...row.marks.map((mark) => mark.value))),
          x2: x(Math.max(...row.marks.map((mark) => mark.value))),
          y1: height,
          y2: height,
          class: `line c${row.marks[0].solver % 8}`,
        }),
      );
    }
    for (const mark of row.marks.toReversed()) {
      const drawn = mark.text
        ? stop(x(mark.value), height, mark)
        : marker(mark.solver, x(mark.value), height, 4.6);
      drawn.append(svg("title", {}, `${mark.name}: ${format(mark.value)}`));
      on.picture.append(drawn);
    }
    if (row.note) {
      on.picture.append(svg("text", { x: on.left + 6, y: height + 4, class: "note" }, row.note));
    }
  });
}

// A gap that is reached, named in the mark itself.

function stop(x, y, mark) {
  const width = 7 + 6.4 * mark.text.length;
  return svg(
    "g",
    { transform: `translate(${x},${y})`, class: `stop c${mark.solver % 8}` },
    svg("rect", { x: -width / 2, y: -8, width, height: 16, rx: 8 }),
    svg("text", { y: 4, class: "middle" }, mark.text),
  );
}

// Shares from 0 to 1 against a logarithmic axis, a staircase for each series.

function profileChart(host, { title, description, series, xLabel, yLabel, unit, low, high, names }) {
  const narrow = host.clientWidth < 430;
  const on = canvas(host, {
    height: 320,
    margin: { left: 48, right: narrow ? 84 : 120, top: 24, bottom: 42 },
    title,
    description,
  });
  const x = logarithmic(low, high, on.left, on.right, unit);
  const y = linear(0, 1, on.bottom, on.top, (v) => `${Math.round(v * 100)} %`);
  axes(on, x, y, { xLabel, yLabel });
  const ends = [];
  for (const each of series) {
    let path = `M${on.left},${on.bottom}`;
    for (const [at, share] of each.points) {
      path += `H${x(Math.min(at, high)).toFixed(1)}V${y(share).toFixed(1)}`;
    }
    const final = each.points.length ? each.points.at(-1)[1] : 0;
    on.picture.append(
      svg("path", {
        d: `${path}H${on.right}`,
        class: `line c${each.solver % 8}`,
        "stroke-dasharray": dashes(each.solver),
      }),
    );
    ends.push({ solver: each.solver, y: y(final) });
  }
  endLabels(on, ends, names);
  readout(host, on, (pixel) => {
    const at = x.invert(pixel);
    const shares = series
      .map((each) => ({
        solver: each.solver,
        share: each.points.findLast(([time]) => time <= at)?.[1] ?? 0,
      }))
      .toSorted((a, b) => b.share - a.share);
    const where = unit === "s" ? `within ${seconds(at)}` : `within ${significant(at, 3)} times`;
    return [
      [html("strong", {}, where)],
      ...shares.map((each) => [
        swatch(each.solver),
        ` ${names[each.solver]} `,
        html("b", {}, `${(each.share * 100).toFixed(0)} %`),
      ]),
    ];
  });
}

// A point for each run: error against a score of the network.

function scatterChart(host, { title, points, xLabel, yLabel, names }) {
  const on = canvas(host, {
    height: 280,
    margin: { left: 52, right: 18, top: 24, bottom: 42 },
    title,
    description: `${points.length} runs. ${scatterWords(points, names)}`,
  });
  const scores = points.map((p) => p.score);
  const room = Math.max((Math.max(...scores) - Math.min(...scores)) * 0.08, 0.1);
  const errors = points.map((p) => p.ratio).filter((r) => r > 0);
  const least = Math.min(...errors, 1);
  const x = logarithmic(least / 1.2, Math.max(...errors, least * 2) * 1.2, on.left, on.right, "");
  const y = linear(Math.min(...scores) - room, Math.max(...scores) + room, on.bottom, on.top, (v) => significant(v, 4));
  axes(on, x, y, { xLabel, yLabel });
  for (const point of points) {
    const drawn = marker(point.solver, x(point.ratio), y(point.score), 4.2);
    const said = `${names[point.solver]}: ${ratio(point.ratio)}, ${significant(point.score, 4)}`;
    drawn.append(svg("title", {}, said));
    on.picture.append(drawn);
  }
}

function scatterWords(points, names) {
  const [best] = points.toSorted((a, b) => b.score - a.score);
  return best ? `The highest score is ${significant(best.score, 4)}, of ${names[best.solver]}.` : "";
}

// A cell for each row of the layer: how far a solver is from the best known.

const SHADES = ["best known", "to 0.1 %", "to 1 %", "to 10 %", "to 100 %", "more"];

function shade(gap) {
  if (gap <= 1e-9) return 0;
  const found = STEPS.findIndex((step) => gap <= step);
  return found < 0 ? 5 : found + 1;
}

function rowsChart(host, { title, lines, left }) {
  const count = Math.max(...lines.map((line) => line.values.length));
  const on = canvas(host, {
    height: 12 + 22 * lines.length + 38,
    margin: { left, right: 8, top: 4, bottom: 38 },
    title,
    description: lines
      .map((line) => `${line.label}: ${line.values.filter((v) => v !== null && v <= 1e-9).length} of ${count} rows at 0`)
      .join("; "),
  });
  const wide = (on.right - on.left) / count;
  lines.forEach((line, i) => {
    const top = on.top + 22 * i;
    on.picture.append(svg("text", { x: on.left - 8, y: top + 14, class: "name end" }, line.label));
    line.values.forEach((value, r) => {
      if (value === null) return;
      on.picture.append(
        svg(
          "rect",
          {
            x: (on.left + wide * r).toFixed(2),
            y: top,
            width: Math.max(wide - (wide > 5 ? 1 : 0), 0.5).toFixed(2),
            height: 20,
            class: `shade s${shade(value)}`,
          },
          svg("title", {}, `${line.label}, row ${r}: ${percent(value)}`),
        ),
      );
    });
  });
  const x = linear(0, count, on.left, on.right);
  for (const { at, text } of x.ticks) {
    if (Number.isInteger(at) && at < count) {
      on.picture.append(svg("text", { x: x(at + 0.5), y: on.bottom + 14, class: "tick middle" }, text));
    }
  }
  on.picture.append(
    svg("text", { x: (on.left + on.right) / 2, y: on.bottom + 31, class: "label middle" }, "row of the layer"),
  );
}

// Weights by where they lie between two grid points: above the axis those that went
// up, below it those that went down; dark what went the other way than to nearest.

function weightsChart(host, { title, description, up, down }) {
  const on = canvas(host, {
    height: 280,
    margin: { left: 56, right: 12, top: 24, bottom: 42 },
    title,
    description,
  });
  const x = linear(0, 1, on.left, on.right, (v) => significant(v, 2));
  const most = Math.max(...up, ...down, 1) * 1.05;
  const y = linear(-most, most, on.bottom, on.top, (v) => Math.abs(v).toLocaleString("en"));
  axes(on, x, y, { xLabel: "before: place between the two grid points", yLabel: "after: weights that went up (above) and down (below)" });
  const wide = (on.right - on.left) / up.length;
  const bars = (counts, sign, away) => {
    counts.forEach((count, i) => {
      if (!count) return;
      on.picture.append(
        svg(
          "rect",
          {
            x: on.left + wide * i + 1,
            y: sign > 0 ? y(count) : y(0),
            width: wide - 2,
            height: Math.abs(y(count) - y(0)),
            class: away(i) ? "bar away" : "bar",
          },
          svg("title", {}, `${count} weights went ${sign > 0 ? "up" : "down"}`),
        ),
      );
    });
  };
  const half = up.length / 2;
  bars(up, 1, (i) => i < half);
  bars(down, -1, (i) => i >= half);
  on.picture.append(
    svg("line", { x1: on.left, x2: on.right, y1: y(0), y2: y(0), class: "axis" }),
  );
}
