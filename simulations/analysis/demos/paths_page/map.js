"use strict";
// The plane of the two weights: contours, minima, the start, which can be moved, and the paths.

const LOOKS = [{ color: "var(--c0)", dash: "" }, { color: "var(--c1)", dash: "6 3" }]; // of the two paths
const FAR = 20000; // pixels beyond which a point is drawn no farther
const NEAR = 12; // pixels at which the pointer is on a point

/** The map of a surface, as wide as the container. `move` is called with each new start. */
function makeMap(container, surface, move) {
  const { window: [left, right, bottom, top], minima } = data.surfaces[surface];
  const ratio = (top - bottom) / (right - left), margins = [64, 44]; // of charts.js's frame
  const tallest = Math.max(260, 0.72 * innerHeight);
  const width = Math.min(Math.max(240, container.clientWidth), (tallest - margins[1]) / ratio + margins[0]);
  const height = (width - margins[0]) * ratio + margins[1]; // one unit is as long on both axes
  const plot = frame(width, { xs: [left, right], ys: [bottom, top], xTitle: "w₁", height, xTicks: 6 });
  const { svg, x, y, area } = plot;
  svg.setAttribute("role", "group");
  svg.setAttribute("aria-label", "The plane of the two weights, with the paths");
  svg.style.maxWidth = `${width}px`;
  const size = { x: area.left, y: area.top, width: area.right - area.left, height: area.bottom - area.top };
  const inside = make("g", { "clip-path": "url(#inside)" }), drawn = make("g", { "clip-path": "url(#inside)" });
  contours(surface, [left, right, bottom, top]).forEach(({ lines: found }, rank) => {
    const d = found.map((line) => `M${line.map(([w1, w2]) => `${x(w1).toFixed(1)},${y(w2).toFixed(1)}`).join("L")}`).join("");
    inside.append(make("path", { class: "contour", d, opacity: (0.7 - (0.45 * rank) / (LINES - 1)).toFixed(2) }));
  });
  for (const [w1, w2] of minima) inside.append(make("path", { class: "star", d: star(x(w1), y(w2), 8) }));
  const handle = make("g", { class: "start", tabindex: 0, role: "slider", "aria-label": "start point; arrow keys move it" }, [
    make("circle", { class: "reach", r: 22, fill: "transparent" }), make("rect", { class: "square", x: -5.5, y: -5.5, width: 11, height: 11 })]);
  svg.append(make("defs", {}, make("clipPath", { id: "inside" }, make("rect", size))), inside, drawn,
    make("text", { class: "name", x: area.left + 6, y: area.top + 14 }, "w₂"), handle);

  let start = [0, 0], paths = [], isDragged = false;
  const within = (value, low, high) => Math.min(high, Math.max(low, value));
  const moveTo = (w1, w2) => move([within(w1, left, right), within(w2, bottom, top)].map((w) => Number(w.toPrecision(4))));
  const pixel = (event) => {
    const box = svg.getBoundingClientRect(), scale = width / box.width;
    return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  };
  const moveToPixel = ([px, py]) => moveTo(left + ((px - area.left) / size.width) * (right - left), top - ((py - area.top) / size.height) * (top - bottom));
  const isInside = ([px, py]) => px >= area.left && px <= area.right && py >= area.top && py <= area.bottom;

  svg.addEventListener("pointerdown", (event) => {
    const onHandle = handle.contains(event.target);
    if (!onHandle && (event.pointerType !== "mouse" || !isInside(pixel(event)))) return; // a finger scrolls, and taps
    isDragged = true;
    svg.setPointerCapture(event.pointerId);
    hideTip();
    if (!onHandle) moveToPixel(pixel(event));
  });
  svg.addEventListener("pointermove", (event) => (isDragged ? moveToPixel(pixel(event)) : tell(event)));
  for (const end of ["pointerup", "pointercancel"]) svg.addEventListener(end, () => { isDragged = false; });
  svg.addEventListener("pointerleave", hideTip);
  svg.addEventListener("click", (event) => { if (isInside(pixel(event)) && !handle.contains(event.target)) moveToPixel(pixel(event)); });
  handle.addEventListener("keydown", (event) => {
    const direction = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!direction) return;
    event.preventDefault();
    const far = ((right - left) / 100) * (event.shiftKey ? 10 : 1);
    moveTo(start[0] + far * direction[0], start[1] + far * direction[1]);
  });

  function tell(event) {
    const at = pixel(event);
    let best = null, least = NEAR;
    paths.forEach((path, rank) => path.points.forEach((point, step) => {
      const away = Math.hypot(x(point[0]) - at[0], y(point[1]) - at[1]);
      if (away < least) { least = away; best = { rank, step, point, loss: path.losses[step], name: path.name }; }
    }));
    if (!best || !isInside(at)) { hideTip(); return; }
    showTip(event, `step ${best.step}`, [[LOOKS[best.rank].color, best.name], [null, `at (${best.point.map(formatNumber).join(", ")})`], [null, `loss ${formatNumber(best.loss)}`]]);
  }

  /** `shown`: for each path its rank, name, points (up to where it diverges) and their losses. */
  function draw(newStart, shown) {
    [start, paths] = [newStart, shown];
    drawn.replaceChildren(...shown.flatMap(({ rank, points }) => {
      const at = points.map((point) => [x(point[0]), y(point[1])].map((value) => within(value, -FAR, FAR).toFixed(1)));
      const look = { stroke: LOOKS[rank].color, class: "steps" };
      const dots = at.length > 300 ? "" : at.map(([px, py]) => (rank ? `M${px - 2},${py - 2}h4v4h-4Z` : `M${px - 2.2},${py}a2.2,2.2 0 1,0 4.4,0a2.2,2.2 0 1,0 -4.4,0`)).join("");
      const [endX, endY] = at[at.length - 1];
      return [
        make("path", { ...look, "data-path": rank, "stroke-dasharray": LOOKS[rank].dash, d: `M${at.map((pair) => pair.join(",")).join("L")}` }),
        make("path", { d: dots, fill: LOOKS[rank].color }),
        make("circle", { ...look, cx: endX, cy: endY, r: 5.5 }),
      ];
    }));
    handle.setAttribute("transform", `translate(${within(x(start[0]), -FAR, FAR)},${within(y(start[1]), -FAR, FAR)})`);
    for (const [key, value] of Object.entries({ min: left, max: right, now: start[0], text: `w1 ${start[0]}, w2 ${start[1]}` })) {
      handle.setAttribute(`aria-value${key}`, value);
    }
  }

  container.replaceChildren(svg);
  return { draw };
}

function star(x, y, radius) {
  const corners = Array.from({ length: 10 }, (_, k) => {
    const length = k % 2 ? radius * 0.42 : radius, angle = -Math.PI / 2 + (k * Math.PI) / 5;
    return `${(x + length * Math.cos(angle)).toFixed(1)},${(y + length * Math.sin(angle)).toFixed(1)}`;
  });
  return `M${corners.join("L")}Z`;
}
