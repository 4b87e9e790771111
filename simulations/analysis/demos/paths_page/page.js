"use strict";
// The page: its state, what the controls do to it, and what is drawn of it.

const at = (id) => document.getElementById(id);
const LEAST = 1e-12; // the smallest height above the minimum that is drawn

let state, map, waiting;

/** The paths of the state: rank, name, points up to where it diverges, losses, and its end. */
function computed() {
  const { surface, start, steps, batch, seed, paths } = state;
  const deviation = batch ? (data.noise * norm(SURFACES[surface].gradient(start))) / Math.sqrt(batch) : 0;
  return paths.flatMap((path, rank) => {
    if (!path) return [];
    const about = data.optimizers[path.optimizer];
    const noise = batch && !about.exact ? noiseOf(seed, steps, deviation) : null;
    const points = descend(surface, path.optimizer, path.settings, start, steps, noise), end = ending(surface, points);
    const shown = end.diverges === undefined ? points : points.slice(0, end.diverges + 1).filter((point) => point.every(Number.isFinite));
    return [{ rank, name: about.title, points: shown, losses: end.losses.slice(0, shown.length), end }];
  });
}

function redraw() {
  const paths = computed();
  map.draw(state.start, paths);
  drawLoss(paths);
  at("ends").replaceChildren(...paths.map((path) => make("p", {}, [mark(path.rank), words(path)])));
  clearTimeout(waiting); // browsers allow few changes of the address in a second
  waiting = setTimeout(() => history.replaceState(null, "", `#${addressOf(state)}`), 250);
}

function mark(rank) {
  const { color, dash } = LOOKS[rank];
  return make("svg", { viewBox: "0 0 26 8", "aria-hidden": "true" }, make("line", { x1: 0, x2: 26, y1: 4, y2: 4, stroke: color, "stroke-width": 2.5, "stroke-dasharray": dash }));
}

function words({ name, end }) {
  if (end.diverges !== undefined) return `${name} diverges: at step ${end.diverges} its loss is out of bounds, beyond ${formatNumber(end.bound)}.`;
  const curvature = largestCurvature(SURFACES[state.surface].hessian(end.point));
  const [left, right, bottom, top] = data.surfaces[state.surface].window, [w1, w2] = end.point;
  const away = w1 < left || w1 > right || w2 < bottom || w2 > top ? ", outside the picture," : "";
  return `${name} ends at (${end.point.map(coordinate).join(", ")})${away} with loss ${formatNumber(end.loss)}; the largest curvature there is ${formatNumber(curvature)}.`;
}

const coordinate = (value) => formatNumber(Math.abs(value) < LEAST ? 0 : value);

function drawLoss(paths) {
  const { lowest } = data.surfaces[state.surface], container = at("loss");
  const series = paths.map(({ rank, name, losses, end }) => ({ name, ...LOOKS[rank], hidden: false, xs: losses.map((_, step) => step),
    ys: losses.map((loss) => (Math.abs(loss) <= end.bound ? Math.max(LEAST, loss - lowest) : NaN)) }));
  const above = Math.abs(lowest) > 1e-9 ? `The height above the lowest loss, ${formatNumber(lowest)}. ` : "";
  const cut = series.some(({ ys }) => ys.includes(LEAST)) ? `What is below ${LEAST} is drawn at ${LEAST}.` : "";
  at("about-loss").textContent = above + cut;
  const power = (value) => (value < 1e-3 || value >= 1e5 ? value.toExponential(0) : String(Number(value.toPrecision(3))));
  const value = (height) => (height <= LEAST ? `at most ${LEAST}` : formatNumber(height));
  container.replaceChildren(lines(Math.max(240, container.clientWidth), series, { xTitle: "step", log: true, yTick: power, formatValue: value }));
}

/** A formula of surfaces.py with indices and exponents. */
function typeset(text) {
  return text.replace(/w([12])/g, (_, index) => `w${"₁₂"[index - 1]}`).replace(/\^([234])/g, (_, power) => "²³⁴"[power - 2]);
}

/** What depends on the surface or the optimizers is made anew. */
function build() {
  const { surface, start, steps, seed, paths } = state, about = data.surfaces[surface];
  at("surface").value = surface;
  at("about-surface").textContent = typeset(`${about.about}.`);
  at("batch").value = state.batch;
  at("common").replaceChildren(
    settingRow("w1", "w1", start[0], (value) => { state.start[0] = value; redraw(); }),
    settingRow("w2", "w2", start[1], (value) => { state.start[1] = value; redraw(); }),
    settingRow("steps", "steps", steps, (value) => { state.steps = value; redraw(); }, { slider: { low: 1, high: Math.max(2 * about.steps, 200), scale: "whole" } }));
  at("noise").replaceChildren(...(state.batch ? [settingRow("seed", "seed", seed, (value) => { state.seed = value; redraw(); })] : []));
  paths.forEach((path, rank) => {
    at(`optimizer-${rank}`).value = path ? path.optimizer : "";
    const optimizer = path && data.optimizers[path.optimizer];
    at(`formula-${rank}`).textContent = path ? optimizer.formula + (state.batch && optimizer.exact ? ". It takes exact gradients." : "") : "";
    at(`settings-${rank}`).replaceChildren(...Object.entries(path ? path.settings : {}).map(([name, value]) =>
      settingRow(`${name}-${rank}`, name, value, (found) => { path.settings[name] = found; redraw(); },
        { slider: data.sliders[name], usual: about.settings[path.optimizer][name] })));
  });
  drawMap();
}

function rebuild() {
  at("wrong").textContent = "";
  build();
}

function drawMap() {
  map = makeMap(at("map"), state.surface, (start) => {
    state.start = start;
    ["w1", "w2"].forEach((id, i) => { at(id).value = start[i]; at(id).dispatchEvent(new Event("input")); });
  });
  redraw();
}

function openAddress() {
  const { state: found, wrong } = stateOf(decodeURIComponent(location.hash.slice(1)));
  state = found;
  build();
  at("wrong").textContent = wrong.join("; ");
}

const names = Object.entries(data.optimizers).map(([name, { title }]) => [name, title]);
fillSelect(at("surface"), Object.keys(data.surfaces).map((name) => [name, name]), data.chosen);
fillSelect(at("optimizer-0"), names, FIRST);
fillSelect(at("optimizer-1"), [["", "nothing"], ...names], "");

const change = (id, then) => at(id).addEventListener("change", () => { then(at(id).value); rebuild(); });
change("surface", (surface) => {
  const { paths, batch, seed } = state;
  state = { ...fresh(surface), batch, seed, paths: paths.map((path) => path && freshPath(surface, path.optimizer)) };
});
change("batch", (batch) => { state.batch = Number(batch); });
[0, 1].forEach((rank) => change(`optimizer-${rank}`, (optimizer) => { state.paths[rank] = optimizer ? freshPath(state.surface, optimizer) : null; }));
at("reset").addEventListener("click", () => { state = fresh(state.surface); rebuild(); });
addEventListener("hashchange", openAddress);
let drawnFor = innerWidth;
addEventListener("resize", () => { if (innerWidth !== drawnFor) { drawnFor = innerWidth; drawMap(); } });

openAddress();
