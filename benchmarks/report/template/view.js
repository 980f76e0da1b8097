// What is shown: the filters, and the address that keeps them.

const data = JSON.parse(document.getElementById("data").textContent);
const objects = (table) =>
  table.lines.map((line) => Object.fromEntries(table.fields.map((name, i) => [name, line[i]])));
const { problems, solvers, budgets } = data;
const cells = objects(data.cells);
const targets = objects(data.targets);
const names = solvers.map((solver) => solver.short);
const GAPS = [0.1, 0.01, 0.001, 0];
const GAP_NAMES = ["10", "1", "0.1", "0"].map((name) => `${name}${SPACE}%`);

const unique = (values) => [...new Set(values)];
const CHOICES = {
  layer: unique(problems.map((problem) => problem.layer)),
  bits: unique(problems.map((problem) => problem.bits)).toSorted((a, b) =>
    a.localeCompare(b, "en", { numeric: true }),
  ),
  solver: solvers.map((solver) => solver.label),
};
const DEFAULTS = {
  layer: CHOICES.layer,
  bits: CHOICES.bits,
  solver: data.first,
  measure: "gap",
  gap: "1",
  budget: "last",
  a: CHOICES.solver[0],
  b: CHOICES.solver[1] ?? CHOICES.solver[0],
  score: data.scores.names[0] ?? "",
  of: CHOICES.solver[0],
};
// The tables' orders are kept, too: order.results=-gap.
const ORDERS = {
  best: "problem",
  results: "problem",
  targets: "problem",
  pairs: "p",
  scores: "problem",
  rows: "problem",
  statuses: "solver",
  failures: "-count",
};
let state = {};

function same(a, b) {
  return a.length === b.length && a.every((value) => b.includes(value));
}

function readAddress() {
  const given = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
  state = { ...DEFAULTS, order: { ...ORDERS } };
  for (const name of Object.keys(DEFAULTS)) {
    if (!given.has(name)) continue;
    const known = CHOICES[name];
    state[name] = known ? given.getAll(name).filter((value) => known.includes(value)) : given.get(name);
  }
  for (const id of Object.keys(ORDERS)) {
    if (given.has(`order.${id}`)) state.order[id] = given.get(`order.${id}`);
  }
  state.section = given.get("section") ?? "";
}

function writeAddress() {
  const kept = new URLSearchParams();
  for (const [name, usual] of Object.entries(DEFAULTS)) {
    if (CHOICES[name]) {
      if (same(state[name], usual)) continue;
      // A filter that lets nothing through is said as well.
      for (const value of state[name].length ? state[name] : [""]) kept.append(name, value);
    } else if (state[name] !== usual) kept.set(name, state[name]);
  }
  for (const [id, usual] of Object.entries(ORDERS)) {
    if (state.order[id] !== usual) kept.set(`order.${id}`, state.order[id]);
  }
  if (state.section) kept.set("section", state.section);
  history.replaceState(null, "", `#${kept}`);
}

function selected() {
  const shown = problems.map((_, i) => i).filter(
    (i) => state.layer.includes(problems[i].layer) && state.bits.includes(problems[i].bits),
  );
  const running = solvers.map((_, i) => i).filter((i) => state.solver.includes(solvers[i].label));
  // Solvers without any answer are in the tables, but in no plot.
  const answering = running.filter((i) => cells.some((cell) => cell.solver === i && cell.gap !== null));
  const inView = (each) => shown.includes(each.problem) && running.includes(each.solver);
  return { problems: shown, solvers: running, answering, inView };
}

function toggle(name, value) {
  const chosen = state[name].includes(value)
    ? state[name].filter((other) => other !== value)
    : CHOICES[name].filter((other) => other === value || state[name].includes(other));
  change({ [name]: chosen });
}

function change(changes) {
  Object.assign(state, changes);
  writeAddress();
  draw();
}

function sortTable(id, order) {
  change({ order: { ...state.order, [id]: order } });
}

// The filters themselves.

function drawFilters(view) {
  for (const name of ["layer", "bits", "solver"]) {
    const host = document.getElementById(`filter-${name}`);
    if (host.childElementCount) {
      for (const box of host.querySelectorAll("input")) box.checked = state[name].includes(box.value);
      continue;
    }
    CHOICES[name].forEach((value, i) => {
      const box = html("input", {
        type: "checkbox",
        value,
        checked: state[name].includes(value),
        onchange: () => toggle(name, value),
      });
      const text = name === "solver" ? names[i] : value;
      host.append(
        html("label", { title: value }, box, name === "solver" ? swatch(i) : null, html("span", {}, text)),
      );
    });
    const all = (label, values) =>
      html("button", { type: "button", onclick: () => change({ [name]: values }) }, label);
    if (CHOICES[name].length > 2) {
      host.after(html("div", { class: "all" }, all("all", CHOICES[name]), all("none", [])));
    }
  }
  const runs = cells.filter(view.inView).reduce((sum, cell) => sum + cell.runs, 0);
  const part = (some, all, what) => `${some === all ? some : `${some} of ${all}`} ${what}`;
  const said = [
    part(view.problems.length, problems.length, "problems"),
    part(view.solvers.length, solvers.length, "solvers"),
    `${runs.toLocaleString("en")} runs`,
  ];
  for (const place of document.querySelectorAll(".shown")) place.textContent = said.join(", ");
}

// A control of one section: a choice among a few, kept in the address.

function control(host, name, label, choices) {
  const id = `control-${host.id}-${name}`;
  const select = html(
    "select",
    { id, onchange: () => change({ [name]: select.value }) },
    ...choices.map(([value, text]) =>
      html("option", { value, selected: value === state[name] }, text),
    ),
  );
  host.append(html("label", { for: id }, label), select);
}
