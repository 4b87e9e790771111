"use strict";
// The surfaces of simulations/analysis/surfaces.py: values, gradients, and Hessians as [h11, h12, h22].

const SURFACES = {
  quadratic: {
    value: ([x, y]) => 0.5 * (x * x + 25 * y * y),
    gradient: ([x, y]) => [x, 25 * y],
    hessian: () => [1, 0, 25],
  },
  saddle: {
    value: ([x, y]) => x * x - y * y + 0.25 * y ** 4,
    gradient: ([x, y]) => [2 * x, -2 * y + y * y * y],
    hessian: ([, y]) => [2, 0, -2 + 3 * y * y],
  },
  plateau: {
    value: ([x, y]) => 1 - Math.exp(-0.5 * (x * x + 4 * y * y)),
    gradient: ([x, y]) => {
      const e = Math.exp(-0.5 * (x * x + 4 * y * y));
      return [x * e, 4 * y * e];
    },
    hessian: ([x, y]) => {
      const e = Math.exp(-0.5 * (x * x + 4 * y * y));
      return [(1 - x * x) * e, -4 * x * y * e, (4 - 16 * y * y) * e];
    },
  },
  ravine: {
    value: ([x, y]) => (1 - x) ** 2 + 100 * (y - x * x) ** 2,
    gradient: ([x, y]) => {
      const rest = y - x * x;
      return [-2 * (1 - x) - 400 * x * rest, 200 * rest];
    },
    hessian: ([x, y]) => [2 - 400 * (y - x * x) + 800 * x * x, -400 * x, 200],
  },
  beale: {
    value: ([x, y]) => BEALE.reduce((sum, a, k) => sum + (a - x + x * y ** (k + 1)) ** 2, 0),
    gradient: ([x, y]) => {
      const found = [0, 0];
      BEALE.forEach((a, k) => {
        const power = k + 1, rest = a - x + x * y ** power;
        found[0] += 2 * rest * (y ** power - 1);
        found[1] += 2 * rest * (x * power * y ** k);
      });
      return found;
    },
    hessian: ([x, y]) => {
      const found = [0, 0, 0];
      BEALE.forEach((a, k) => {
        const power = k + 1, rest = a - x + x * y ** power, of1 = y ** power - 1, of2 = x * power * y ** k;
        found[0] += 2 * of1 * of1;
        found[1] += 2 * (of1 * of2 + rest * power * y ** k);
        found[2] += 2 * (of2 * of2 + (k ? rest * x * power * k * y ** (k - 1) : 0));
      });
      return found;
    },
  },
  product: {
    value: ([x, y]) => (x * y - 1) ** 2,
    gradient: ([x, y]) => [2 * (x * y - 1) * y, 2 * (x * y - 1) * x],
    hessian: ([x, y]) => [2 * y * y, 2 * (2 * x * y - 1), 2 * x * x],
  },
  "two-minima": {
    value: ([x, y]) => 1.2 - HOLES.reduce((sum, hole) => sum + depth(hole, x, y), 0) + 0.02 * (x * x + y * y),
    gradient: ([x, y]) => {
      const found = [0.04 * x, 0.04 * y];
      for (const hole of HOLES) {
        const pull = depth(hole, x, y) / hole.width ** 2;
        found[0] += (x - hole.x) * pull;
        found[1] += y * pull;
      }
      return found;
    },
    hessian: ([x, y]) => {
      const found = [0.04, 0, 0.04];
      for (const hole of HOLES) {
        const square = hole.width ** 2, pull = depth(hole, x, y) / square, away = x - hole.x;
        found[0] += pull * (1 - (away * away) / square);
        found[1] -= (pull * away * y) / square;
        found[2] += pull * (1 - (y * y) / square);
      }
      return found;
    },
  },
};

const BEALE = [1.5, 2.25, 2.625];

const HOLES = [
  { x: -1, width: 0.25, deep: 0.6 },
  { x: 1, width: 1.2, deep: 1 },
];

function depth({ x: at, width, deep }, x, y) {
  return deep * Math.exp(-((x - at) ** 2 + y * y) / (2 * width ** 2));
}

/** The larger eigenvalue of a Hessian [h11, h12, h22]. */
function largestCurvature([a, b, c]) {
  return (a + c) / 2 + Math.sqrt(((a - c) / 2) ** 2 + b * b);
}
