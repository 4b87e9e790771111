"use strict";
// A setting as a number field, with a slider where it has one.

/** How a slider's place, from 0 to 1000, belongs to a value. `usual` is the setting's default. */
function scaleOf({ low, high, scale }, usual) {
  const places = 1000, digits = (value) => Number(value.toPrecision(3));
  const logarithmic = (from, to) => ({
    place: (value) => (places * Math.log(value / from)) / Math.log(to / from),
    value: (place) => from * (to / from) ** (place / places),
  });
  if (scale === "log" || scale === "factor") {
    const by = scale === "log" ? logarithmic(low, high) : logarithmic(low * usual, high * usual);
    return { place: by.place, value: (place) => digits(by.value(place)) };
  }
  if (scale === "decay") {
    const by = logarithmic(1 - low, 1 - high);
    return { place: (value) => by.place(Math.max(1 - value, 1e-9)), value: (place) => Number((1 - digits(by.value(place))).toFixed(6)) };
  }
  const whole = scale === "whole" ? Math.round : digits;
  return { place: (value) => (places * (value - low)) / (high - low), value: (place) => whole(low + ((high - low) * place) / places) };
}

/** A row of label, number field and slider. `change` is called with each value that is within bounds. */
function settingRow(id, name, value, change, { slider = null, usual = null } = {}) {
  const field = make("input", { type: "number", id, step: "any", value, "aria-describedby": `${id}-wrong` });
  const wrong = make("p", { class: "wrong", id: `${id}-wrong`, role: "alert" });
  const parts = [make("label", { for: id }, BOUNDS[name].label), field];
  const complain = (sentence) => {
    field.setAttribute("aria-invalid", String(sentence !== ""));
    wrong.textContent = sentence;
  };
  const scale = slider && scaleOf(slider, usual);
  const range = slider && make("input", { type: "range", min: 0, max: 1000, step: 1, "aria-label": `${BOUNDS[name].label}, slider` });
  const follow = (shown) => {
    if (!range) return;
    range.value = scale.place(shown);
    range.setAttribute("aria-valuetext", formatNumber(shown));
  };
  field.addEventListener("input", () => {
    try {
      const found = numberOf(name, field.value);
      complain("");
      follow(found);
      change(found);
    } catch (error) {
      complain(error.message);
    }
  });
  if (range) {
    range.addEventListener("input", () => {
      const found = scale.value(Number(range.value));
      field.value = found;
      complain("");
      range.setAttribute("aria-valuetext", formatNumber(found));
      change(found);
    });
    parts.push(range);
  }
  follow(value);
  return make("div", { class: "row" }, [...parts, wrong]);
}

function fillSelect(select, options, chosen) {
  select.replaceChildren(...options.map(([value, text]) => make("option", { value }, text)));
  select.value = chosen;
}
