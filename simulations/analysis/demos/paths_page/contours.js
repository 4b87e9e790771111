"use strict";
// Lines of equal loss: a grid of triangles, and where the lines cross their sides.

const GRID = 140; // triangles along each side of the window
const LINES = 16;
const SHARES = [0.02, 0.97]; // of the grid's points: how many lie below the lowest and below the highest line

/** The lines within the window, lowest first, as {level, lines: [[[x, y], ...], ...]}; as many points lie between each two. */
function contours(surface, [left, right, bottom, top]) {
  const { value } = SURFACES[surface];
  const grid = (low, high) => Array.from({ length: GRID + 1 }, (_, i) => low + ((high - low) * i) / GRID);
  const xs = grid(left, right), ys = grid(bottom, top), losses = ys.flatMap((y) => xs.map((x) => value([x, y])));
  const sorted = Float64Array.from(losses).sort();
  return Array.from({ length: LINES }, (_, rank) => {
    const share = SHARES[0] + ((SHARES[1] - SHARES[0]) * rank) / (LINES - 1);
    const level = sorted[Math.round(share * (sorted.length - 1))];
    return { level, lines: joined(crossings(level, xs, ys, losses)) };
  });
}

/** The points at which the line of a level crosses a triangle's side, by the side, and the sides that it joins. */
function crossings(level, xs, ys, losses) {
  const row = GRID + 1, points = new Map(), neighbors = new Map();
  const crossing = (a, b) => {
    const side = Math.min(a, b) * 4 * row + (Math.max(a, b) - Math.min(a, b));
    if (!points.has(side)) {
      const share = (level - losses[a]) / (losses[b] - losses[a]);
      const along = (values, from, to) => values[from] + share * (values[to] - values[from]);
      points.set(side, [along(xs, a % row, b % row), along(ys, Math.floor(a / row), Math.floor(b / row))]);
      neighbors.set(side, []);
    }
    return side;
  };
  const triangle = (a, b, c) => {
    const found = [[a, b], [b, c], [c, a]].filter(([p, q]) => losses[p] < level !== losses[q] < level);
    if (!found.length) return;
    const [first, second] = found.map(([p, q]) => crossing(p, q));
    neighbors.get(first).push(second);
    neighbors.get(second).push(first);
  };
  for (let j = 0; j < GRID; j++) {
    for (let i = 0; i < GRID; i++) {
      const corner = j * row + i;
      triangle(corner, corner + 1, corner + row);
      triangle(corner + 1, corner + row + 1, corner + row);
    }
  }
  return { points, neighbors };
}

/** Lines through the points: those that end at the window's edge, then those that are closed. */
function joined({ points, neighbors }) {
  const seen = new Set(), found = [];
  const follow = (from) => {
    const line = [];
    let side = from;
    while (side !== undefined) {
      seen.add(side);
      line.push(points.get(side));
      side = neighbors.get(side).find((next) => !seen.has(next));
    }
    return line;
  };
  for (const [side, next] of neighbors) if (next.length === 1 && !seen.has(side)) found.push(follow(side));
  for (const side of neighbors.keys()) {
    if (seen.has(side)) continue;
    const line = follow(side);
    found.push([...line, line[0]]);
  }
  return found;
}
