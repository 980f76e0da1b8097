// Elements, scales, axes, marks: what every plot is drawn with.

function fill(target, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) target.addEventListener(name.slice(2), value);
    else target.setAttribute(name, value === true ? "" : value);
  }
  // Text stays text: names from the store are never read as markup.
  target.append(...children.filter((child) => child !== null && child !== undefined));
  return target;
}

function html(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return fill(
    document.createElementNS("http://www.w3.org/2000/svg", tag),
    attributes,
    children,
  );
}

// Numbers as text. A gap is a share of the way from the best known to nearest.

function significant(value, digits = 3) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) {
    const [mantissa, power] = value.toExponential(digits - 1).split("e");
    const raised = [...String(Number(power))].map((c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]);
    return `${mantissa}·10${raised.join("")}`;
  }
  return String(Number(value.toPrecision(digits)));
}

// A number and its unit are never parted.
const SPACE = "\u00a0";

function percent(value) {
  if (value === null || value === undefined) return "–";
  const hundredths = value * 100;
  if (Math.abs(hundredths) < 1e-7) return `0${SPACE}%`;
  if (hundredths > 0 && hundredths < 0.001) return `<${SPACE}0.001${SPACE}%`;
  return `${Number(hundredths.toPrecision(hundredths >= 100 ? 4 : 3))}${SPACE}%`;
}

function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 1e-3) return `${significant(value * 1e6, 2)}${SPACE}µs`;
  if (value < 1) return `${significant(value * 1e3, 3)}${SPACE}ms`;
  if (value < 120) return `${significant(value, 3)}${SPACE}s`;
  return `${significant(value / 60, 3)}${SPACE}min`;
}

// An interval around a time, in the time's own unit.
function interval(low, high, middle) {
  const unit = seconds(middle).split(SPACE)[1];
  const factor = { µs: 1e6, ms: 1e3, s: 1, min: 1 / 60 }[unit];
  const end = (value) => (value === null ? "∞" : significant(value * factor, 3));
  return low === high ? "" : `[${end(low)}, ${end(high)}]`;
}

function ratio(value) {
  return value === null || value === undefined ? "–" : value.toFixed(4);
}

function decade(value, unit) {
  if (unit === "s") {
    if (value < 1e-3) return `${Math.round(value * 1e6)} µs`;
    return value < 1 ? `${Math.round(value * 1e3)} ms` : `${value} s`;
  }
  return unit === "%" ? `${Number((value * 100).toPrecision(1))} %` : String(value);
}

// Scales: functions from values to pixels, with ticks of their own.

function logarithmic(low, high, from, to, unit) {
  const [a, b] = [Math.log10(low), Math.log10(high)];
  const scale = (value) =>
    from + ((Math.log10(Math.max(value, low)) - a) / (b - a)) * (to - from);
  scale.invert = (pixel) => 10 ** (a + ((pixel - from) / (to - from)) * (b - a));
  const powers = [];
  for (let e = Math.ceil(a - 1e-9); e <= b + 1e-9; e++) powers.push(e);
  const room = Math.max(2, Math.floor(Math.abs(to - from) / (unit === "s" ? 62 : 34)));
  const every = Math.ceil(powers.length / room);
  scale.ticks = powers
    .filter((_, i) => i % every === 0)
    .map((e) => ({ at: 10 ** e, text: decade(Number(`1e${e}`), unit) }));
  // Within a single decade, its powers alone would leave the axis bare.
  if (scale.ticks.length < 2) {
    const steps = [];
    for (let e = Math.floor(a); e <= b; e++) {
      for (const m of [1, 2, 5]) steps.push(Number(`${m}e${e}`));
    }
    scale.ticks = steps
      .filter((v) => v >= low * 0.999 && v <= high * 1.001)
      .map((v) => ({ at: v, text: decade(v, unit) }));
  }
  return scale;
}

function linear(low, high, from, to, format = String) {
  const scale = (value) => from + ((value - low) / (high - low)) * (to - from);
  scale.invert = (pixel) => low + ((pixel - from) / (to - from)) * (high - low);
  const rough = (high - low) / Math.max(2, Math.abs(to - from) / 40);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((m) => m * power >= rough);
  scale.ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-6; k++) {
    const at = Number((k * step).toPrecision(12));
    scale.ticks.push({ at, text: format(at) });
  }
  return scale;
}

// Solvers keep their colour, dashes and marker whatever is filtered away.

const DASHES = ["", "7 3", "2 3", "9 3 2 3"];
// Where colours come round again, dashes do not.
const dashes = (solver) => DASHES[(solver + Math.floor(solver / 8)) % 4];
const MARKERS = [
  (r) => svg("circle", { r: r * 0.95 }),
  (r) => svg("rect", { x: -r * 0.85, y: -r * 0.85, width: r * 1.7, height: r * 1.7 }),
  (r) => svg("path", { d: `M0,${-r * 1.15}L${r * 1.1},${r * 0.8}H${-r * 1.1}Z` }),
  (r) => svg("path", { d: `M0,${-r * 1.25}L${r * 1.25},0L0,${r * 1.25}L${-r * 1.25},0Z` }),
  (r) => svg("path", { d: `M0,${r * 1.15}L${r * 1.1},${-r * 0.8}H${-r * 1.1}Z` }),
  (r) =>
    svg("path", {
      d: `M${-r},${-r}L${r},${r}M${r},${-r}L${-r},${r}`,
      class: "stroked",
    }),
  (r) =>
    svg("path", {
      d: `M0,${-r * 1.2}V${r * 1.2}M${-r * 1.2},0H${r * 1.2}`,
      class: "stroked",
    }),
];

function marker(solver, x, y, size = 4, extra = "") {
  const shape = MARKERS[solver % MARKERS.length](size);
  return svg(
    "g",
    { transform: `translate(${x},${y})`, class: `mark c${solver % 8} ${extra}` },
    shape,
  );
}

function swatch(solver) {
  return svg(
    "svg",
    { width: 34, height: 12, viewBox: "0 0 34 12", class: "swatch", "aria-hidden": "true" },
    svg("line", {
      x1: 1,
      x2: 33,
      y1: 6,
      y2: 6,
      class: `line c${solver % 8}`,
      "stroke-dasharray": dashes(solver),
    }),
    marker(solver, 17, 6, 3.6),
  );
}

// A picture with axes; `plot` is the group that marks go into.

let pictures = 0;

function canvas(host, { height, margin, title, description }) {
  const width = Math.max(240, host.clientWidth);
  const id = `picture${++pictures}`;
  const picture = svg(
    "svg",
    {
      viewBox: `0 0 ${width} ${height}`,
      width,
      height,
      role: "img",
      "aria-labelledby": `${id}t ${id}d`,
      class: "picture",
    },
    svg("title", { id: `${id}t` }, title),
    svg("desc", { id: `${id}d` }, description),
  );
  host.append(picture);
  const inner = {
    left: margin.left,
    right: width - margin.right,
    top: margin.top,
    bottom: height - margin.bottom,
  };
  return { picture, width, height, ...inner };
}

function axes(on, x, y, { xLabel, yLabel, zero = false }) {
  const back = svg("g", { class: "axes" });
  for (const { at, text } of y.ticks) {
    const height = y(at);
    back.append(
      svg("line", { x1: on.left, x2: on.right, y1: height, y2: height, class: "grid" }),
      svg("text", { x: on.left - 7, y: height + 4, class: "tick end" }, text),
    );
  }
  if (zero) {
    back.append(
      svg("line", {
        x1: on.left,
        x2: on.right,
        y1: on.bottom,
        y2: on.bottom,
        class: "grid",
      }),
      svg("text", { x: on.left - 7, y: on.bottom + 4, class: "tick end" }, "0"),
    );
  }
  for (const { at, text } of x.ticks) {
    back.append(
      svg("line", {
        x1: x(at),
        x2: x(at),
        y1: on.bottom,
        y2: on.bottom + 4,
        class: "axis",
      }),
      svg("text", { x: x(at), y: on.bottom + 17, class: "tick middle" }, text),
    );
  }
  back.append(
    svg("line", {
      x1: on.left,
      x2: on.right,
      y1: on.bottom,
      y2: on.bottom,
      class: "axis",
    }),
    svg(
      "text",
      { x: (on.left + on.right) / 2, y: on.bottom + 34, class: "label middle" },
      xLabel,
    ),
    svg("text", { x: 0, y: 11, class: "label" }, yLabel),
  );
  on.picture.append(back);
}

// Labels at the ends of lines, moved apart where they would overlap.

function endLabels(on, ends, names) {
  const gap = 13;
  const sorted = ends.toSorted((a, b) => a.y - b.y);
  const spots = sorted.map((end) => end.y);
  for (let i = 1; i < spots.length; i++) spots[i] = Math.max(spots[i], spots[i - 1] + gap);
  let floor = on.bottom + 4;
  for (let i = spots.length - 1; i >= 0; i--) {
    spots[i] = Math.min(spots[i], floor);
    floor = spots[i] - gap;
  }
  sorted.forEach((end, i) => {
    on.picture.append(
      svg("path", {
        d: `M${on.right + 2},${end.y}L${on.right + 9},${spots[i]}`,
        class: "leader",
      }),
      marker(end.solver, on.right + 15, spots[i], 3.2),
      svg(
        "text",
        { x: on.right + 23, y: spots[i] + 4, class: "name" },
        names[end.solver],
      ),
    );
  });
}

// What a reader points at, with a mouse, a finger or the arrow keys, in words.

function readout(host, on, lines) {
  const box = html("div", { class: "readout", role: "status", "aria-live": "polite" });
  const rule = svg("line", { y1: on.top, y2: on.bottom, class: "rule", visibility: "hidden" });
  on.picture.append(rule);
  host.append(box);
  let position = on.left + (on.right - on.left) / 2;
  const show = (pixel) => {
    position = Math.min(on.right, Math.max(on.left, pixel));
    const said = lines(position);
    box.replaceChildren(...said.map((line) => html("div", {}, ...[line].flat())));
    box.classList.add("on");
    const place = (position / on.width) * host.clientWidth;
    box.style.left = `${Math.min(place + 10, host.clientWidth - box.offsetWidth - 4)}px`;
    if (place + 10 + box.offsetWidth > host.clientWidth) {
      box.style.left = `${Math.max(0, place - box.offsetWidth - 10)}px`;
    }
    rule.setAttribute("x1", position);
    rule.setAttribute("x2", position);
    rule.setAttribute("visibility", "visible");
  };
  const hide = () => {
    box.classList.remove("on");
    rule.setAttribute("visibility", "hidden");
  };
  on.picture.setAttribute("tabindex", "0");
  on.picture.addEventListener("pointermove", (event) => {
    const area = on.picture.getBoundingClientRect();
    show(((event.clientX - area.left) / area.width) * on.width);
  });
  on.picture.addEventListener("pointerleave", hide);
  on.picture.addEventListener("blur", hide);
  on.picture.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") hide();
    if (step === undefined) return;
    event.preventDefault();
    show(position + (step * (on.right - on.left)) / 40);
  });
}
