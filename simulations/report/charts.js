"use strict";
// Charts as SVG: axes, lines with bands, points with error bars, stacked bars, bubbles, strips. No library.

const SVG = "http://www.w3.org/2000/svg";
const DASHES = ["", "6 3", "2 3", "9 3 2 3", "4 2"];
const tip = document.getElementById("tip");

function make(name, attributes = {}, children = []) {
  const known = ["svg", "g", "path", "line", "rect", "circle", "text", "title", "defs", "clipPath"].includes(name);
  const element = known ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value);
  }
  element.append(...[children].flat());
  return element;
}

function formatNumber(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}

const percent = (value) => `${(100 * value).toFixed(2)}%`;
const percentTick = (value) => `${Number((100 * value).toFixed(1))}%`;

function showTip(event, title, lines) {
  tip.replaceChildren(make("b", {}, title), ...lines.map(([color, text]) =>
    make("div", {}, color ? [make("i", { style: `background:${color}` }), text] : [text])));
  tip.style.display = "block";
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - box.width - 6))}px`;
  tip.style.top = `${Math.max(4, Math.min(event.clientY + 14, innerHeight - box.height - 6))}px`;
}

function hideTip() { tip.style.display = "none"; }

function ticks(low, high, count) {
  const span = high - low || 1, rough = span / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-9; at += step) {
    found.push(Number(at.toPrecision(12)));
  }
  return found;
}

function logTicks(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    for (const factor of [1, 2, 5]) {
      const at = factor * 10 ** power;
      if (at >= low * 0.999 && at <= high * 1.001) found.push(at);
    }
  }
  if (found.length < 3) return ticks(low, high, 4).filter((at) => at > 0);
  if (found.length <= 7) return found;
  const powers = found.filter((at) => /^1(e|$|0*$)|^0\.0*1$/.test(String(at)));
  return powers.filter((_, index) => index % Math.ceil(powers.length / 9) === 0);
}

/** An empty plot with axes; x and y map data to coordinates. `log` is for the y axis. */
function frame(width, { xs, ys, xTitle, yTick = formatNumber, xTick = formatNumber, log = false, height = 250, left = 52, xTicks = Math.max(3, Math.floor(width / 90)) }) {
  const area = { left, right: width - 12, top: 10, bottom: height - 34 };
  const x = (value) => area.left + ((value - xs[0]) / (xs[1] - xs[0] || 1)) * (area.right - area.left);
  const place = log ? Math.log10 : (value) => value;
  const [low, high] = ys.map(place);
  const y = (value) => area.bottom - ((place(value) - low) / (high - low || 1)) * (area.bottom - area.top);
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  for (const at of log ? logTicks(...ys) : ticks(...ys, 5)) {
    svg.append(
      make("line", { class: "grid", x1: area.left, x2: area.right, y1: y(at), y2: y(at) }),
      make("text", { x: area.left - 6, y: y(at) + 4, "text-anchor": "end" }, yTick(at)));
  }
  if (xTitle !== null) {
    const whole = (at) => !["round", "step"].includes(xTitle) || Number.isInteger(at);
    for (const at of ticks(...xs, xTicks).filter(whole)) {
      svg.append(make("text", { x: x(at), y: area.bottom + 16, "text-anchor": "middle" }, xTick(at)));
    }
    svg.append(make("text", { x: area.right, y: height - 4, "text-anchor": "end" }, xTitle));
  }
  return { svg, x, y, area };
}

function padded(low, high, log) {
  if (log) return [low / 1.15, high * 1.15];
  const room = (high - low || Math.abs(high) || 1) * 0.05;
  return [low - room, high + room];
}

/** Lines with bands. A series: {name, color, dash, xs, ys, deviations?, marked?, hidden}. */
function lines(width, series, { xTitle, yTick, formatValue = formatNumber, log = false }) {
  const drawn = series.filter((one) => !one.hidden && one.xs.length);
  const shown = drawn.length ? drawn : series.filter((one) => one.xs.length);
  const usable = (value) => Number.isFinite(value) && (!log || value > 0);
  const ys = shown.flatMap((one) => one.ys).filter(usable), xs = shown.flatMap((one) => one.xs);
  const bound = ys.length ? padded(Math.min(...ys), Math.max(...ys), log) : log ? [0.1, 1] : [0, 1];
  const plot = frame(width, { xs: [Math.min(...xs), Math.max(...xs)], ys: bound, xTitle, yTick, log });
  const clamp = (value) => Math.max(bound[0], Math.min(bound[1], value));
  const at = (one, index, value) => `${plot.x(one.xs[index]).toFixed(1)},${plot.y(clamp(value)).toFixed(1)}`;
  for (const one of drawn) {
    const indices = one.ys.map((_, index) => index).filter((index) => usable(one.ys[index]));
    if (!indices.length) continue;
    if (one.deviations && one.deviations.some((value) => value > 0)) {
      const low = (index) => (log ? Math.max(one.ys[index] - one.deviations[index], bound[0]) : one.ys[index] - one.deviations[index]);
      const upper = indices.map((index) => at(one, index, one.ys[index] + one.deviations[index]));
      const lower = indices.map((index) => at(one, index, low(index))).reverse();
      plot.svg.append(make("path", { class: "band", fill: one.color, d: `M${[...upper, ...lower].join("L")}Z` }));
    }
    plot.svg.append(make("path", { class: "curve", "data-series": one.name, stroke: one.color,
      "stroke-dasharray": one.dash, d: `M${indices.map((index) => at(one, index, one.ys[index])).join("L")}` }));
    if (one.marked || indices.length < 12) {
      for (const index of indices) {
        const [cx, cy] = at(one, index, one.ys[index]).split(",");
        plot.svg.append(make("circle", { cx, cy, r: 2.4, fill: one.color, class: "marker" }));
      }
    }
  }
  const cross = make("line", { class: "cross", y1: plot.area.top, y2: plot.area.bottom, visibility: "hidden" });
  const everyX = [...new Set(drawn.flatMap((one) => one.xs))].sort((a, b) => a - b);
  const move = (event) => {
    if (!everyX.length) return;
    const box = plot.svg.getBoundingClientRect(), mouse = ((event.clientX - box.left) / box.width) * width;
    const near = everyX.reduce((best, value) => (Math.abs(plot.x(value) - mouse) < Math.abs(plot.x(best) - mouse) ? value : best));
    cross.setAttribute("x1", plot.x(near));
    cross.setAttribute("x2", plot.x(near));
    cross.setAttribute("visibility", "visible");
    const values = drawn.map((one) => {
      const index = nearest(one.xs, near);
      return [one, one.ys[index], one.deviations ? one.deviations[index] : 0];
    }).sort((a, b) => b[1] - a[1]);
    showTip(event, `${xTitle} ${formatNumber(near)}`, values.map(([one, value, deviation]) =>
      [one.color, `${one.name}: ${formatValue(value)}${deviation > 0 ? ` ± ${formatValue(deviation)}` : ""}`]));
  };
  plot.svg.append(cross);
  plot.svg.addEventListener("pointermove", move);
  plot.svg.addEventListener("pointerdown", move);
  plot.svg.addEventListener("pointerleave", () => { cross.setAttribute("visibility", "hidden"); hideTip(); });
  return plot.svg;
}

function nearest(values, wanted) {
  let best = 0;
  values.forEach((value, index) => { if (Math.abs(value - wanted) < Math.abs(values[best] - wanted)) best = index; });
  return best;
}

/** Means with error bars at named positions. A series: {name, color, dash, points: [[place, mean, deviation or null, mark]]}. */
function points(width, places, series, { yTick, formatValue, xTitle, connected }) {
  const every = series.flatMap((one) => one.points);
  const ys = padded(Math.min(...every.map(([, m, s]) => m - s)), Math.max(...every.map(([, m, s]) => m + s)));
  const plot = frame(width, { xs: [-0.5, places.length - 0.5], ys, xTitle: null, yTick, height: 270 });
  places.forEach((place, index) => plot.svg.append(
    make("text", { x: plot.x(index), y: plot.area.bottom + 16, "text-anchor": "middle" }, place)));
  plot.svg.append(make("text", { x: plot.area.right, y: 266, "text-anchor": "end" }, xTitle));
  series.forEach((one, rank) => {
    const shift = (rank - (series.length - 1) / 2) * Math.min(0.07, 0.6 / series.length);
    const at = (place) => plot.x(places.indexOf(place) + shift);
    const path = one.points.map(([place, mean]) => `${at(place).toFixed(1)},${plot.y(mean).toFixed(1)}`).join("L");
    if (connected) plot.svg.append(make("path", { class: "curve", "data-series": one.name, stroke: one.color, "stroke-dasharray": one.dash, d: `M${path}` }));
    for (const [place, mean, deviation, mark] of one.points) {
      const showThis = (event) => showTip(event, `${xTitle} ${place}`, [[one.color, `${one.name}: ${formatValue(mean)}${deviation === null ? "" : ` ± ${formatValue(deviation)}`}${mark}`]]);
      plot.svg.append(
        make("line", { x1: at(place), x2: at(place), y1: plot.y(mean - deviation), y2: plot.y(mean + deviation), stroke: one.color, "stroke-width": 1.4 }),
        make("circle", { cx: at(place), cy: plot.y(mean), r: 4, fill: one.color, onpointermove: showThis, onpointerdown: showThis, onpointerleave: hideTip }));
    }
  });
  return plot.svg;
}

/** One row of dots for each series: {name, color, values}; the median as a bar, the worst tenth marked. */
function strips(width, series, { formatValue, xTick, xTitle }) {
  const row = 30, left = Math.min(190, width * 0.36), height = series.length * row + 44;
  const all = series.flatMap((one) => one.values);
  const plot = frame(width, { xs: padded(Math.min(...all), Math.max(...all)), ys: [0, series.length], xTitle, xTick, yTick: () => "", height, left });
  plot.svg.querySelectorAll(".grid").forEach((line) => line.remove());
  series.forEach((one, index) => {
    const middle = plot.area.top + (index + 0.5) * row, sorted = [...one.values].sort((a, b) => a - b);
    const median = sorted[Math.floor(sorted.length / 2)], tenth = sorted[Math.max(0, Math.round(sorted.length / 10) - 1)];
    const showThis = (event) => showTip(event, one.name, [["", `median ${formatValue(median)}`], ["", `a tenth below ${formatValue(tenth)}`],
      ["", `from ${formatValue(sorted[0])} to ${formatValue(sorted.at(-1))}`], ["", `${sorted.length} clients`]]);
    const group = make("g", { onpointermove: showThis, onpointerdown: showThis, onpointerleave: hideTip });
    const fits = Math.floor(left / 6.3);
    const name = one.name.length > fits ? `${one.name.slice(0, fits - 1)}…` : one.name;
    group.append(make("rect", { x: 0, y: middle - row / 2, width, height: row, fill: "transparent" }),
      make("text", { x: plot.area.left - 8, y: middle + 4, "text-anchor": "end" }, name));
    sorted.forEach((value, rank) => group.append(make("circle", { cx: plot.x(value).toFixed(1),
      cy: (middle + (((rank * 7919) % 97) / 97 - 0.5) * row * 0.55).toFixed(1), r: 2, fill: one.color, opacity: 0.55 })));
    for (const [value, thickness] of [[median, 2.5], [tenth, 1.2]]) {
      group.append(make("line", { x1: plot.x(value), x2: plot.x(value), y1: middle - row * 0.4, y2: middle + row * 0.4, stroke: "var(--ink)", "stroke-width": thickness }));
    }
    plot.svg.append(group);
  });
  return plot.svg;
}

/** A client's name, or its number where the data name no clients. */
const clientName = (clients, number) => (clients ? clients[number] : String(number));

/** The text below a client's place: names are shortened to the room between two of them. */
const clientTick = (clients) => (at) => {
  const name = Number.isInteger(at) && at >= 0 ? clientName(clients, at) ?? "" : "";
  return name.length > 14 ? `${name.slice(0, 13)}…` : name;
};

/** Samples by client: one stacked bar each. */
function stackedBars(width, { counts, classes, clients: names }, color) {
  const sizes = counts.map((row) => row.reduce((a, b) => a + b, 0)), clients = counts.length;
  const plot = frame(width, { xs: [-0.5, clients - 0.5], ys: [0, Math.max(...sizes)], xTitle: "client", xTick: clientTick(names), height: 220 });
  const wide = ((plot.area.right - plot.area.left) / clients) * 0.86;
  counts.forEach((row, client) => {
    let below = 0;
    const showThis = (event) => showTip(event, `client ${clientName(names, client)}: ${sizes[client]} samples`, row.map((count, label) => [count, label])
      .filter(([count]) => count).sort((a, b) => b[0] - a[0]).slice(0, 8).map(([count, label]) => [color(label), `${classes[label]}: ${count}`]));
    const bar = make("g", { onpointermove: showThis, onpointerdown: showThis, onpointerleave: hideTip });
    row.forEach((count, label) => {
      if (!count) return;
      const top = plot.y(below + count);
      bar.append(make("rect", { x: (plot.x(client) - wide / 2).toFixed(2), y: top.toFixed(2), width: wide.toFixed(2), height: (plot.y(below) - top).toFixed(2), fill: color(label) }));
      below += count;
    });
    plot.svg.append(bar);
  });
  return plot.svg;
}

/** Samples by client and class: a bubble each, its area the number. */
function bubbles(width, { counts, classes, clients: names }, color) {
  const clients = counts.length, height = Math.min(560, 60 + 24 * classes.length), most = Math.max(...counts.flat());
  const plot = frame(width, { xs: [-0.5, clients - 0.5], ys: [classes.length - 0.5, -0.5], xTitle: "client", xTick: clientTick(names),
    yTick: () => "", height });
  plot.svg.querySelectorAll(".grid").forEach((line) => line.remove());
  const every = Math.ceil(classes.length / 30);
  const largest = Math.min(13, (plot.area.bottom - plot.area.top) / classes.length / 1.7, Math.max(3.5, ((plot.area.right - plot.area.left) / clients) * 1.1));
  classes.forEach((name, label) => {
    if (label % every === 0) plot.svg.append(make("text", { x: plot.area.left - 6, y: plot.y(label) + 4, "text-anchor": "end" }, String(name).slice(0, 8)));
  });
  counts.forEach((row, client) => row.forEach((count, label) => {
    if (!count) return;
    const showThis = (event) => showTip(event, `client ${clientName(names, client)}`, [[color(label), `${classes[label]}: ${count}`]]);
    plot.svg.append(make("circle", { cx: plot.x(client).toFixed(1), cy: plot.y(label).toFixed(1), r: Math.max(0.8, largest * Math.sqrt(count / most)).toFixed(2),
      fill: color(label), opacity: 0.85, onpointermove: showThis, onpointerdown: showThis, onpointerleave: hideTip }));
  }));
  return plot.svg;
}
