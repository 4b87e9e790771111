"use strict";
// The updates of fedopt's local optimizers over two weights. Each takes its settings and gives a function of
// (w, gradient, hessian), which steps from w: `gradient` and `hessian` are functions of a point.

const each = (entry) => [entry(0), entry(1)];
const dot = (a, b) => a[0] * b[0] + a[1] * b[1];
const norm = (a) => Math.sqrt(dot(a, a));
const mix = (old, fresh, keep) => each((i) => keep * old[i] + (1 - keep) * fresh[i]);
const onePlus = (beta, t) => -Math.expm1(t * Math.log(beta)); // 1 - beta^t

const UPDATES = {
  gd: ({ lr }) => (w, gradient) => {
    const g = gradient(w);
    return each((i) => w[i] - lr * g[i]);
  },

  "heavy-ball": ({ lr, momentum }) => {
    let v = [0, 0];
    return (w, gradient) => {
      const g = gradient(w);
      v = each((i) => momentum * v[i] + g[i]);
      return each((i) => w[i] - lr * v[i]);
    };
  },

  nesterov: ({ lr, momentum }) => {
    let v = [0, 0];
    return (w, gradient) => {
      const g = gradient(w);
      v = each((i) => momentum * v[i] + g[i]);
      return each((i) => w[i] - lr * (g[i] + momentum * v[i]));
    };
  },

  "nesterov-look-ahead": ({ lr, momentum }) => {
    let v = [0, 0];
    return (w, gradient) => {
      const g = gradient(each((i) => w[i] - lr * momentum * v[i]));
      v = each((i) => momentum * v[i] + g[i]);
      return each((i) => w[i] - lr * v[i]);
    };
  },

  "averaged-gradient": ({ lr, beta }) => {
    let m = [0, 0];
    return (w, gradient) => {
      m = mix(m, gradient(w), beta);
      return each((i) => w[i] - lr * m[i]);
    };
  },

  asgd: ({ lr }) => {
    let z = null, steps = 0;
    return (w, gradient) => {
      z = z || w;
      const g = gradient(z);
      z = each((i) => z[i] - lr * g[i]);
      steps += 1;
      return each((i) => w[i] + (z[i] - w[i]) / steps);
    };
  },

  lookahead: ({ lr, sync_period: period, slow_step: share }) => {
    let slow = null, steps = 0;
    return (w, gradient) => {
      slow = slow || w;
      const g = gradient(w), fast = each((i) => w[i] - lr * g[i]);
      steps += 1;
      if (steps % period !== 0) return fast;
      slow = each((i) => slow[i] + share * (fast[i] - slow[i]));
      return slow;
    };
  },

  adagrad: ({ lr }) => {
    let sum = [0, 0];
    return (w, gradient) => {
      const g = gradient(w);
      sum = each((i) => sum[i] + g[i] * g[i]);
      return each((i) => w[i] - (lr * g[i]) / (Math.sqrt(sum[i]) + 1e-10));
    };
  },

  rmsprop: ({ lr, smoothing }) => {
    let v = [0, 0];
    return (w, gradient) => {
      const g = gradient(w);
      v = mix(v, each((i) => g[i] * g[i]), smoothing);
      return each((i) => w[i] - (lr * g[i]) / (Math.sqrt(v[i]) + 1e-8));
    };
  },

  adam: ({ lr, beta1, beta2 }) => {
    let m = [0, 0], v = [0, 0], t = 0;
    return (w, gradient) => {
      const g = gradient(w);
      t += 1;
      m = mix(m, g, beta1);
      v = mix(v, each((i) => g[i] * g[i]), beta2);
      const [bias1, bias2] = [onePlus(beta1, t), onePlus(beta2, t)];
      return each((i) => w[i] - (lr * (m[i] / bias1)) / (Math.sqrt(v[i] / bias2) + 1e-8));
    };
  },

  amsgrad: ({ lr, beta1, beta2 }) => {
    let m = [0, 0], v = [1e-6, 1e-6], largest = v;
    return (w, gradient) => {
      const g = gradient(w);
      m = mix(m, g, beta1);
      v = mix(v, each((i) => g[i] * g[i]), beta2);
      largest = each((i) => Math.max(largest[i], v[i]));
      return each((i) => w[i] - (lr * m[i]) / Math.sqrt(largest[i]));
    };
  },

  nadam: ({ lr, beta1, beta2 }) => {
    let m = [0, 0], v = [0, 0], t = 0, weight = 0; // weight: 1 - mu_1 ... mu_t
    const muAt = (step) => beta1 * (1 - 0.5 * 0.96 ** (step * 0.004));
    return (w, gradient) => {
      const g = gradient(w);
      t += 1;
      m = mix(m, g, beta1);
      v = mix(v, each((i) => g[i] * g[i]), beta2);
      const mu = muAt(t), next = muAt(t + 1);
      weight = mu * weight + (1 - mu);
      const ahead = next * weight + (1 - next), bias = onePlus(beta2, t);
      return each((i) => w[i] - (lr * ((next * m[i]) / ahead + ((1 - mu) * g[i]) / weight)) / (Math.sqrt(v[i] / bias) + 1e-8));
    };
  },

  radam: ({ lr, beta1, beta2 }) => {
    let m = [0, 0], v = [0, 0], t = 0;
    const longest = 2 / (1 - beta2) - 1;
    return (w, gradient) => {
      const g = gradient(w);
      t += 1;
      m = mix(m, g, beta1);
      v = mix(v, each((i) => g[i] * g[i]), beta2);
      const bias1 = onePlus(beta1, t), bias2 = onePlus(beta2, t);
      const length = longest - (2 * t * (1 - bias2)) / bias2;
      if (!(length > 5)) return each((i) => w[i] - (lr * m[i]) / bias1);
      const rectified = ((length - 4) * (length - 2) * longest) / ((longest - 4) * (longest - 2) * length);
      return each((i) => w[i] - ((lr * m[i]) / bias1) * (Math.sqrt(rectified * bias2) / (Math.sqrt(v[i]) + 1e-8)));
    };
  },

  lion: ({ lr, beta1, beta2 }) => {
    let m = [0, 0];
    return (w, gradient) => {
      const g = gradient(w), direction = mix(m, g, beta1).map(Math.sign);
      m = mix(m, g, beta2);
      return each((i) => w[i] - lr * direction[i]);
    };
  },

  sam: ({ lr, rho }) => (w, gradient) => {
    const g = gradient(w), size = norm(g);
    const worst = size > 0 ? gradient(each((i) => w[i] + (rho * g[i]) / size)) : g;
    return each((i) => w[i] - lr * worst[i]);
  },

  asam: ({ lr, rho }) => (w, gradient) => {
    const g = gradient(w), scale = w.map((entry) => Math.abs(entry) + 0.01);
    const scaled = each((i) => scale[i] * g[i]), size = norm(scaled);
    const worst = size > 0 ? gradient(each((i) => w[i] + (rho * scale[i] * scaled[i]) / size)) : g;
    return each((i) => w[i] - lr * worst[i]);
  },

  larc: ({ lr, trust }) => (w, gradient) => {
    const g = gradient(w), factor = Math.min(1, trustRatio(w, g, trust) / lr);
    return each((i) => w[i] - lr * factor * g[i]);
  },

  lars: ({ lr, trust }) => (w, gradient) => {
    const g = gradient(w), ratio = trustRatio(w, g, trust);
    return each((i) => w[i] - lr * ratio * g[i]);
  },

  newton: ({ lr, damping }) => (w, gradient, hessian) => {
    const g = gradient(w), [h11, b, h22] = hessian(w), a = h11 + damping, c = h22 + damping;
    const determinant = a * c - b * b;
    return [w[0] - (lr * (c * g[0] - b * g[1])) / determinant, w[1] - (lr * (a * g[1] - b * g[0])) / determinant];
  },

  lbfgs: ({ lr }) => {
    const pairs = []; // of a step s and how it changed the gradient, y; the ten last ones
    let before = null, moved = null, scale = 1;
    return (w, gradient) => {
      const g = gradient(w);
      if (Math.max(...g.map(Math.abs)) <= 0) return w;
      let direction = g.map((entry) => -entry), rate = lr;
      if (before === null) rate = lr * Math.min(1, 1 / (Math.abs(g[0]) + Math.abs(g[1])));
      else {
        const y = each((i) => g[i] - before[i]), curved = dot(y, moved);
        if (curved > 1e-10) {
          if (pairs.length === 10) pairs.shift();
          pairs.push({ s: moved, y, curved });
          scale = curved / dot(y, y);
        }
        const shares = [];
        for (const { s, y: change, curved: of } of [...pairs].reverse()) {
          const share = dot(s, direction) / of;
          shares.unshift(share);
          direction = each((i) => direction[i] - share * change[i]);
        }
        direction = each((i) => scale * direction[i]);
        pairs.forEach(({ s, y: change, curved: of }, place) => {
          const back = dot(change, direction) / of;
          direction = each((i) => direction[i] + (shares[place] - back) * s[i]);
        });
      }
      before = g;
      moved = each((i) => rate * direction[i]);
      return dot(g, direction) > 0 ? w : each((i) => w[i] + moved[i]); // torch does not go uphill
    };
  },
};

/** trust |w| / |g|, and 1 where one of them is zero. */
function trustRatio(w, g, trust) {
  return norm(w) > 0 && norm(g) > 0 ? Math.min((trust * norm(w)) / norm(g), Number.MAX_VALUE) : 1;
}

/** The points from `start`, steps + 1 of them. `noise` has a pair for each step, which is added to its gradients. */
function descend(surface, optimizer, settings, start, steps, noise = null) {
  const { gradient, hessian } = SURFACES[surface], step = UPDATES[optimizer](settings), path = [start];
  for (let k = 0; k < steps; k++) {
    const noisy = (w) => {
      const exact = gradient(w);
      return each((i) => exact[i] + noise[k][i]);
    };
    path.push(step(path[k], noise ? noisy : gradient, hessian));
  }
  return path;
}

/** Pairs of normal numbers of this standard deviation, the same for the same seed: mulberry32 and Box and Muller. */
function noiseOf(seed, steps, deviation) {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
  return Array.from({ length: steps }, () => {
    const radius = deviation * Math.sqrt(-2 * Math.log(1 - uniform())), angle = 2 * Math.PI * uniform();
    return [radius * Math.cos(angle), radius * Math.sin(angle)];
  });
}

/** How a path ends: {diverges} with the first step from which on the loss is out of bounds, or {point, loss}. */
function ending(surface, path) {
  const { value } = SURFACES[surface], losses = path.map(value);
  const bound = 1e6 * (1 + Math.abs(losses[0])), inside = (loss) => Math.abs(loss) <= bound;
  let k = path.length;
  while (k > 0 && !inside(losses[k - 1])) k -= 1;
  if (k < path.length) return { losses, bound, diverges: k };
  return { losses, bound, point: path[k - 1], loss: losses[k - 1] };
}
