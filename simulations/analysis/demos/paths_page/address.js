"use strict";
// The page's state, its bounds, and the address that holds it.

const data = JSON.parse(document.getElementById("data").textContent);
const FIRST = "heavy-ball"; // the optimizer at first: it has a momentum to move

const BOUNDS = {
  w1: { label: "start w₁", low: -1000, high: 1000 },
  w2: { label: "start w₂", low: -1000, high: 1000 },
  steps: { label: "steps", low: 1, high: 1000, scale: "whole" },
  seed: { label: "seed of the noise", low: 0, high: 9999, scale: "whole" },
  batch: { label: "batch", low: 0, high: 16, scale: "whole" },
  ...data.sliders,
  lr: { ...data.sliders.lr, low: 1e-6, high: 1000 },
};

/** The number that a text gives for a setting; an Error with a sentence if it is none, or out of bounds. */
function numberOf(name, text) {
  const { label, low, high, scale } = BOUNDS[name], value = Number(text);
  const isGood = String(text).trim() !== "" && value >= low && value <= high && (scale !== "whole" || Number.isInteger(value));
  if (!isGood) throw new Error(`${label}: give a ${scale === "whole" ? "whole " : ""}number from ${low} to ${high}`);
  return value;
}

function fresh(surface) {
  const { start, steps } = data.surfaces[surface];
  return { surface, start: [...start], steps, batch: 0, seed: 0, paths: [freshPath(surface, FIRST), null] };
}

function freshPath(surface, optimizer) {
  return { optimizer, settings: { ...data.surfaces[surface].settings[optimizer] } };
}

function addressOf({ surface, start, steps, batch, seed, paths }) {
  const parts = { surface, start: start.join(","), steps, ...(batch ? { batch, seed } : {}) };
  paths.forEach((path, rank) => {
    if (!path) return;
    parts[rank ? "against" : "optimizer"] = path.optimizer;
    for (const [name, value] of Object.entries(path.settings)) parts[`${rank ? "against." : ""}${name}`] = value;
  });
  return Object.entries(parts).map(([name, value]) => `${name}=${value}`).join("&");
}

/** The state that an address gives, defaults where it is silent, and sentences about what it has wrong. */
function stateOf(address) {
  const given = new URLSearchParams(address), wrong = [];
  const attempt = (change) => { try { change(); } catch (error) { wrong.push(error.message); } };
  const one = (name, known) => {
    const found = given.get(name);
    if (found !== null && !(found in known)) throw new Error(`the address names ${name} ${found}, which the page does not have`);
    return found;
  };
  let state = fresh(data.chosen);
  attempt(() => { const surface = one("surface", data.surfaces); if (surface) state = fresh(surface); });
  attempt(() => {
    if (!given.has("start")) return;
    const parts = given.get("start").split(",");
    if (parts.length !== 2) throw new Error("start: give two numbers, start=W1,W2");
    state.start = [numberOf("w1", parts[0]), numberOf("w2", parts[1])];
  });
  for (const name of ["steps", "batch", "seed"]) attempt(() => { if (given.has(name)) state[name] = numberOf(name, given.get(name)); });
  if (![0, 1, 16].includes(state.batch)) { wrong.push("batch: give 0, for exact gradients, 1 or 16"); state.batch = 0; }
  ["optimizer", "against"].forEach((name, rank) => {
    attempt(() => { const optimizer = one(name, data.optimizers); if (optimizer) state.paths[rank] = freshPath(state.surface, optimizer); });
    const path = state.paths[rank];
    for (const setting of path ? Object.keys(path.settings) : []) {
      const key = `${rank ? "against." : ""}${setting}`;
      attempt(() => { if (given.has(key)) path.settings[setting] = numberOf(setting, given.get(key)); });
    }
  });
  return { state, wrong };
}
