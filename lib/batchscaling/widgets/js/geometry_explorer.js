// Gradient noise against curvature, along directions of a network's layers, as it trains.

import { explorer, formatCount, formatNumber, legend, logAxis, plot } from "./ui.js";

const FLAT = 1e-6; // of the largest curvature: flatter directions are left out, as in the chapter
const LOOKS = {
  direction: { shape: "circle", fill: "var(--blue)" },
  equal: { stroke: "var(--muted)", "stroke-width": 1.5 },
  fit: { stroke: "var(--orange)", "stroke-width": 2.5, "stroke-dasharray": "8 3" },
};

/** [curvature, noise] of each direction that is not flat. */
function steep(points) {
  const least = FLAT * Math.max(...points.map(([h]) => h));
  return points.filter(([h, c]) => h > least && c > 0);
}

/** The power law through points, by least squares in logarithms; null for fewer than two. */
function fitPower(points) {
  const logs = points.map((point) => point.map(Math.log));
  const [mx, my] = [0, 1].map((k) => logs.reduce((sum, log) => sum + log[k], 0) / logs.length);
  let [xx, xy] = [0, 0];
  for (const [x, y] of logs) {
    xx += (x - mx) ** 2;
    xy += (x - mx) * (y - my);
  }
  return xx > 0 ? { exponent: xy / xx, factor: Math.exp(my - (xy / xx) * mx) } : null;
}

// The largest place in a rising list that is not above the value; 0 if there is none.
const placeOf = (values, value) => Math.max(values.filter((v) => v <= value).length - 1, 0);

function compute({ steps, layers, points }, settings) {
  const row = points[placeOf(steps, settings.step)];
  const one = Math.min(settings.layer, layers.length);
  const shown = steep(one === 0 ? row.flat() : row[one - 1]);
  const median = (values) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];
  return {
    step: steps[placeOf(steps, settings.step)],
    name: one === 0 ? "all layers" : layers[one - 1],
    shown,
    law: fitPower(shown),
    middle: median(shown.map(([h, c]) => c / h)),
  };
}

function describe({ step, name, shown, law, middle }) {
  if (law === null) return `Step ${formatCount(step)}, ${name}: no two directions to compare.`;
  return (
    `Step ${formatCount(step)}, ${name}, ${shown.length} directions: noise goes as the curvature to ` +
    `the power ${formatNumber(law.exponent)}; in the middle it is ${formatNumber(middle)} times ` +
    `the curvature.`
  );
}

// Whole decades around the values, at least one.
function decades(values) {
  const ends = [Math.min(...values), Math.max(...values)].map(Math.log10);
  const low = Math.floor(ends[0]);
  return [10 ** low, 10 ** Math.max(Math.ceil(ends[1]), low + 1)];
}

function render({ model, el }) {
  const measured = model.get("measured");
  const every = measured.points.flatMap((row) => steep(row.flat()));
  const ranges = [0, 1].map((k) => decades(every.map((point) => point[k])));
  let found;

  const picture = plot({
    description: "Noise against curvature of each direction; the text below says more.",
    xAxis: logAxis("curvature", ranges[0]),
    yAxis: logAxis("noise", ranges[1]),
    height: (width) => Math.min(Math.max(0.6 * width, 290), 400),
    draw(pen) {
      pen.curve(ranges[0].map((h) => [h, h]), LOOKS.equal);
      if (found.law !== null) {
        const { exponent, factor } = found.law;
        const ends = [Math.min, Math.max].map((end) => end(...found.shown.map(([h]) => h)));
        pen.curve(ends.map((h) => [h, factor * h ** exponent]), LOOKS.fit);
      }
      const { shape, fill } = LOOKS.direction;
      for (const [h, c] of found.shown) pen.mark(pen.x(h), pen.y(c), shape, { fill, size: 0.6 });
    },
  });

  const signs = legend([
    [LOOKS.direction, "a direction"],
    [LOOKS.equal, "noise = curvature"],
    [LOOKS.fit, "power law"],
  ]);
  return explorer({
    model,
    el,
    name: "Geometry explorer",
    knobs: [
      { name: "step", label: "Step", choices: measured.steps, format: formatCount },
      {
        name: "layer",
        label: "Layer",
        choices: [...Array(measured.layers.length + 1).keys()],
        format: (k) => (k === 0 ? "all" : String(measured.layers[k - 1] ?? k)),
      },
    ],
    content: [signs, picture.node],
    parts: [picture],
    lines: [2, 3, 5],
    update(settings, { say, accent }) {
      found = compute(measured, settings);
      accent("blue");
      picture.redraw();
      say(describe(found));
    },
  });
}

export default { render };
