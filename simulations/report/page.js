"use strict";
// The page's sections: the groups shown, their colors, and the charts.

const data = JSON.parse(document.getElementById("data").textContent);
const MOST = 8; // the most curves that can be distinguished
const state = { shown: data.axes.map(() => new Set()), hidden: new Set(), byBytes: false, partition: 0, layersOf: { drift: 0, scale: 0 } };
const compareIndex = data.axes.findIndex((axis) => axis.name === data.compare);
const wheel = (label) => `hsl(${(label * 137.5) % 360} 58% ${label % 2 ? 46 : 60}%)`;
const classColor = (label) => (data.classes.length <= 8 ? `var(--c${label})` : wheel(label));

/** Shows all groups, or as many as can be told apart: those with the labels that are left on each axis. */
function chooseWhatFits() {
  const chosen = data.axes.map((axis) => axis.labels);
  const fitting = () => data.groups.filter((group) => group.labels.every((label, index) => chosen[index].includes(label)));
  const count = () => fitting().length;
  while (count() > MOST) {
    const order = chosen.map((_, index) => index).filter((index) => index !== compareIndex && chosen[index].length > 1);
    if (!order.length) { chosen[compareIndex] = chosen[compareIndex].slice(0, MOST); break; }
    const numeric = (index) => data.axes[index].labels.some((label) => /^\d/.test(label));
    const names = order.filter((index) => !numeric(index)); // numeric axes make better plots, so they are cut last
    const cut = names.length ? names[0] : order.reduce((a, b) => (chosen[b].length > chosen[a].length ? b : a));
    const fit = names.length ? 1 : Math.max(1, Math.floor(MOST / (count() / chosen[cut].length)));
    const labels = chosen[cut].filter((label) => fitting().some((group) => group.labels[cut] === label)); // not all combinations are there
    chosen[cut] = fit === 1 ? [labels[0]] : Array.from({ length: fit }, (_, i) => labels[Math.round((i * (labels.length - 1)) / (fit - 1))]);
  }
  if (!count()) data.groups[0].labels.forEach((label, index) => { chosen[index] = [label]; });
  chosen.forEach((labels, index) => { state.shown[index] = new Set(labels); });
}

function visibleGroups() {
  const groups = data.groups.filter((group) => group.labels.every((label, index) => state.shown[index].has(label)));
  const common = data.axes.map((_, index) => new Set(groups.map((group) => group.labels[index])).size < 2);
  return groups.map((group, rank) => {
    const parts = group.labels.map((label, index) => (common[index] ? null : labelText(index, label))).filter((part) => part !== null);
    const variant = compareIndex < 0 ? 0 : data.axes[compareIndex].labels.indexOf(group.labels[compareIndex]);
    const dash = groups.length > 1 ? Math.max(0, variant) + Math.floor(rank / MOST) : 0;
    return { ...group, name: (parts.join(", ") || group.title) + group.mark, color: `var(--c${rank % MOST})`, dash: DASHES[dash % DASHES.length] };
  });
}

function labelText(index, label) {
  if (label === "true" || label === "false") return `${label === "true" ? "" : "no "}${data.axes[index].title}`;
  return /^\d/.test(label) ? `${data.axes[index].title} ${label}` : label;
}

function figure(title, { meaning = "", wide = false, controls = [], name = title } = {}) {
  const box = make("figure", { ...(wide ? { class: "wide" } : {}), "data-chart": name });
  box.append(make("figcaption", {}, [make("strong", {}, title), ...controls]));
  if (meaning) box.append(make("p", { class: "meaning" }, meaning));
  return box;
}

function widthOf(container) {
  const style = getComputedStyle(container), columns = style.gridTemplateColumns.split(" ").map(parseFloat).filter((n) => n > 0);
  return Math.max(260, (columns[0] || container.clientWidth || 640) - 28);
}

function wideWidth(container) { return Math.max(260, (container.clientWidth || 640) - 28); }

function legend(groups) {
  return make("div", { class: "legend" }, groups.map((group) => {
    const mark = make("svg", { viewBox: "0 0 26 8" }, make("line", { x1: 0, x2: 26, y1: 4, y2: 4, stroke: group.color, "stroke-width": 2.5, "stroke-dasharray": group.dash }));
    return make("button", { type: "button", "data-toggle": group.title, "aria-pressed": String(!state.hidden.has(group.title)), title: "Show or hide this curve",
      onclick: () => { state.hidden.has(group.title) ? state.hidden.delete(group.title) : state.hidden.add(group.title); draw(); } }, [mark, group.name]);
  }));
}

function seriesOf(groups, measure) {
  return groups.filter((group) => group.curves[measure]).map((group) => {
    const [rounds, means, deviations, marked] = group.curves[measure];
    const xs = state.byBytes ? rounds.map((round) => group.megabytes[round]) : rounds;
    return { name: group.name, color: group.color, dash: group.dash, xs, ys: means, deviations, marked, hidden: state.hidden.has(group.title) };
  });
}

function switchOf(options, chosen, choose) {
  return make("span", { class: "switch" }, options.map((option, index) =>
    make("button", { type: "button", "aria-pressed": String(index === chosen), onclick: () => { choose(index); draw(); } }, option)));
}

function lineFigure(container, groups, measure, title, options = {}) {
  const series = seriesOf(groups, measure);
  if (!series.length) return;
  const box = figure(title, { meaning: options.meaning, controls: options.controls || [], name: measure });
  box.append(lines(widthOf(container), series, { xTitle: state.byBytes ? "MB sent" : "round", ...options }));
  if (options.legend !== false) box.append(legend(groups));
  container.append(box);
}

function drawFilters(groups) {
  const bar = document.getElementById("filters");
  bar.replaceChildren();
  if (data.groups.length < 2) return;
  data.axes.forEach((axis, index) => {
    bar.append(make("div", { class: "axis", role: "group", "aria-label": axis.title }, [make("span", {}, axis.title), ...axis.labels.map((label) =>
      make("button", { type: "button", "data-filter": `${axis.name}=${label}`, "aria-pressed": String(state.shown[index].has(label)), onclick: () => {
        state.shown[index].has(label) ? state.shown[index].delete(label) : state.shown[index].add(label);
        if (!state.shown[index].size) axis.labels.forEach((each) => state.shown[index].add(each));
        draw();
      } }, label))]));
  });
  const left = data.groups.length - groups.length;
  if (left) bar.append(make("span", { class: "left-out" }, `${groups.length} of ${data.groups.length} settings are drawn; press a struck-out value to draw its runs, too`));
}

function drawAccuracy(groups) {
  const container = document.querySelector("#accuracy .charts");
  container.replaceChildren();
  const controls = [switchOf(["by rounds", "by MB sent"], state.byBytes ? 1 : 0, (index) => { state.byBytes = index === 1; })];
  lineFigure(container, groups, "test_accuracy", data.personal ? "Test accuracy of the global model" : "Test accuracy", { yTick: percentTick, formatValue: percent, controls });
  lineFigure(container, groups, "regression.r2", "Test R²", { controls });
  lineFigure(container, groups, "regression.mse", "Mean squared error", { log: true });
  if (data.personal) lineFigure(container, groups, "personal_accuracy", "Accuracy of the clients' models", { yTick: percentTick, formatValue: percent,
    meaning: "Each client's test share is classified by the model that the client uses: its own, or the global one where the algorithm gives it no other." });
  lineFigure(container, groups, "test_loss", "Test loss", { log: true });
  lineFigure(container, groups, "train_loss", "Training loss of the clients", { log: true });
}

function drawAxes() {
  const section = document.getElementById("axes"), container = section.querySelector(".charts");
  container.replaceChildren();
  data.axes.forEach((axis, index) => {
    if (axis.labels.length < 3 || index === compareIndex) return;
    const found = new Map();
    for (const group of data.groups) {
      const others = group.labels.filter((_, other) => other !== index);
      const apart = data.axes.map((_, other) => other).filter((other) => other !== index);
      if (!group.final || !apart.every((other) => other === compareIndex || state.shown[other].has(group.labels[other]))) continue;
      const varied = apart.filter((other) => state.shown[other].size > 1);
      const name = varied.map((other) => labelText(other, group.labels[other])).join(", ") || "accuracy";
      const key = others.join("|");
      if (!found.has(key)) found.set(key, { name, variant: compareIndex < 0 ? 0 : data.axes[compareIndex].labels.indexOf(group.labels[compareIndex]), points: [] });
      found.get(key).points.push([group.labels[index], ...group.final, group.mark]);
    }
    const series = [...found.values()].slice(0, MOST * 2).map((one, rank) => ({ ...one, color: `var(--c${rank % MOST})`, dash: DASHES[Math.max(0, one.variant) % DASHES.length] }));
    if (!series.length) return;
    const box = figure(`${data.final} against ${axis.title}`, { wide: true, name: `axis ${axis.name}` });
    const keys = series.map((one) => make("span", { class: "axis" }, [make("svg", { viewBox: "0 0 26 8", width: 26, height: 8 },
      make("line", { x1: 0, x2: 26, y1: 4, y2: 4, stroke: one.color, "stroke-width": 2.5, "stroke-dasharray": one.dash })), one.name]));
    box.append(points(wideWidth(container), axis.labels, series, { yTick: data.numbers ? formatNumber : percentTick, formatValue: data.numbers ? formatNumber : percent, xTitle: axis.title, connected: axis.labels.some((label) => /^\d/.test(label)) }), make("div", { class: "legend" }, keys));
    container.append(box);
  });
  section.hidden = !container.childElementCount;
}

const DRIFT = [
  ["drift.ratio", "Drift ratio", true], ["drift.cosine", "Cosine between updates", false], ["drift.dispersion", "Dispersion of updates", true],
  ["drift.norm", "Length of the mean update", true], ["gradients.zeta2", "Gradient dissimilarity ζ²", true], ["gradients.b2", "Local dissimilarity B²", true],
  ["gradients.alignment", "Alignment with −∇f", false], ["algorithm.error", "Error of the controls", true], ["algorithm.distance", "Length of the correction", true],
  ["divergence", "Divergence from a centralised run", true],
];

const LAYERS = [
  ["drift", "Drift ratio by layer", "layers", "The drift ratio of each layer's parameters alone."],
  ["scale", "Gradient-to-weight ratio by layer", "layer-scale", "The norm of the gradient of the round's objective by the norm of the weights, for each layer's parameters: how far a step of SGD at rate 1 moves the layer in units of its norm."],
];

function layerFigure(container, groups, kind, title, name, meaning) {
  const withLayers = groups.filter((group) => Object.keys(group.layers[kind]).length > 1);
  if (!withLayers.length) return;
  const index = Math.min(state.layersOf[kind], withLayers.length - 1);
  const series = Object.entries(withLayers[index].layers[kind]).map(([layer, [xs, ys]], rank) => ({ name: `layer ${layer}`, color: rank < MOST ? `var(--c${rank})` : wheel(rank), dash: DASHES[Math.floor(rank / MOST) % DASHES.length], xs, ys }));
  const controls = withLayers.length > 1 ? [switchOf(withLayers.map((group) => group.name), index, (chosen) => { state.layersOf[kind] = chosen; })] : [];
  const box = figure(title, { controls, name, meaning });
  const keys = series.map((one) => make("span", { class: "axis" }, [make("svg", { viewBox: "0 0 26 8", width: 26, height: 8 }, make("line", { x1: 0, x2: 26, y1: 4, y2: 4, stroke: one.color, "stroke-width": 2.5, "stroke-dasharray": one.dash })), one.name]));
  box.append(lines(widthOf(container), series, { xTitle: "round", log: true }), make("div", { class: "legend" }, keys));
  container.append(box);
}

function drawDrift(groups) {
  const container = document.querySelector("#drift .charts");
  container.replaceChildren();
  for (const [measure, title, log] of DRIFT) lineFigure(container, groups, measure, title, { log, meaning: data.meanings[measure] });
  for (const [kind, title, name, meaning] of LAYERS) layerFigure(container, groups, kind, title, name, meaning);
  document.getElementById("drift").hidden = !container.childElementCount;
}

function drawClients(groups) {
  const section = document.getElementById("clients"), container = section.querySelector(".charts");
  container.replaceChildren();
  const measured = groups.filter((group) => group.clients.length && !state.hidden.has(group.title));
  if (measured.length) {
    const box = figure("Accuracy of each client", { name: "client accuracies", wide: true,
      meaning: "The model that each client uses at the end, on its own test share, a dot each, all seeds; the thick bar is the median. A tenth of the clients are below the thin bar." });
    box.append(strips(wideWidth(container), measured.map((group) => ({ name: group.name, color: group.color, values: group.clients })), { formatValue: percent, xTick: percentTick, xTitle: "accuracy" }));
    container.append(box);
  }
  lineFigure(container, groups, "clients.worst", "The worst tenth of the clients", { yTick: percentTick, formatValue: percent, meaning: data.meanings["clients.worst"] });
  lineFigure(container, groups, "clients.deviation", "Unevenness over clients", { meaning: data.meanings["clients.deviation"] });
  lineFigure(container, groups, "classes.mean_forgetting", "Forgetting of classes", { yTick: percentTick, formatValue: percent, meaning: data.meanings["classes.mean_forgetting"] });
  const classed = groups.filter((group) => group.classes.length && group.classes.length <= 30);
  if (classed.length) {
    const head = make("tr", {}, [make("th", {}, "class"), ...data.classes.map((name) => make("th", { class: "n" }, name))]);
    const body = classed.map((group) => make("tr", {}, [make("td", {}, group.name), ...group.classes.map((value) => make("td", { class: "n",
      style: value === null ? "" : `background:color-mix(in srgb, var(--mark) ${Math.round(60 * (1 - value))}%, transparent)` }, value === null ? "–" : percent(value)))]));
    const box = figure("Accuracy by class at the end", { name: "classes", wide: true });
    box.append(make("div", { class: "scroll heat" }, make("table", {}, [make("thead", {}, head), make("tbody", {}, body)])));
    container.append(box);
  }
  section.hidden = !container.childElementCount;
}

function drawPartition() {
  const section = document.getElementById("partition"), container = section.querySelector(".charts");
  container.replaceChildren();
  section.hidden = !data.partitions.length;
  if (!data.partitions.length) return;
  const chosen = data.partitions[state.partition];
  const controls = data.partitions.length > 1 ? [switchOf(data.partitions.map((one) => one.title), state.partition, (index) => { state.partition = index; })] : [];
  const bars = figure(`Samples of each client: ${chosen.title}`, { wide: true, controls, name: "partition bars" });
  bars.append(stackedBars(wideWidth(container), chosen, classColor));
  const spots = figure("Samples by client and class", { wide: true, name: "partition bubbles", meaning: "The area of a bubble is the number of samples." });
  spots.append(bubbles(wideWidth(container), chosen, classColor));
  container.append(bars, spots);
}

function draw() {
  hideTip();
  const focus = document.activeElement && document.activeElement.dataset ? { ...document.activeElement.dataset } : {};
  const groups = visibleGroups();
  drawFilters(groups);
  drawAccuracy(groups);
  drawAxes();
  drawDrift(groups);
  drawClients(groups);
  drawPartition();
  document.getElementById("pairs").hidden = !document.querySelector("#pairs tbody tr");
  for (const key of ["filter", "toggle"]) {
    if (focus[key]) [...document.querySelectorAll(`[data-${key}]`)].find((element) => element.dataset[key] === focus[key])?.focus({ preventScroll: true });
  }
}

chooseWhatFits();
draw();
let drawnFor = innerWidth;
addEventListener("resize", () => { if (innerWidth !== drawnFor) { drawnFor = innerWidth; draw(); } });
