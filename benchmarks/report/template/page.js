// The page: its first view, its links, its width.

function draw() {
  const view = selected();
  drawFilters(view);
  for (const part of [
    drawResults,
    drawAnytime,
    drawTargets,
    drawProfiles,
    drawAccuracy,
    drawRows,
    drawWeights,
    drawFailures,
  ]) {
    part(view);
  }
}

function go(section) {
  document.getElementById(section)?.scrollIntoView();
}

readAddress();
draw();
if (state.section) go(state.section);
window.addEventListener("hashchange", () => {
  readAddress();
  draw();
});
for (const link of document.querySelectorAll("nav a")) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    state.section = link.getAttribute("href").slice(1);
    writeAddress();
    go(state.section);
    document.querySelector(`#${state.section} h2`).focus({ preventScroll: true });
  });
}
document.getElementById("reset").addEventListener("click", () => {
  change({ layer: DEFAULTS.layer, bits: DEFAULTS.bits, solver: DEFAULTS.solver });
});
// Plots are as wide as their place: drawn again when that changes.
let width = window.innerWidth;
let timer = 0;
window.addEventListener("resize", () => {
  if (window.innerWidth === width) return;
  width = window.innerWidth;
  clearTimeout(timer);
  timer = setTimeout(draw, 120);
});
const phone = document.getElementById("filters");
phone.open = window.innerWidth >= 1000;
