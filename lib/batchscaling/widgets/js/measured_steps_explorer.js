// A noisy quadratic's steps to the target against batch size, as lines, over measured steps, as
// marks. Knobs multiply the noise and the start, so that one sees which part of the curve each
// number moves.

import { initialRisk } from "./nqm.js";
import { tuneRate } from "./tuning.js";
import {
  KNOBS,
  explorer,
  formatNumber,
  inSlices,
  legend,
  logAxis,
  logChoices,
  plot,
} from "./ui.js";

const BEYOND = 4; // so many times beyond the measured batch sizes the lines go
const FACTORS = logChoices(0.1, 10, 10);

const METHODS = {
  sgd: {
    name: "SGD",
    shape: "circle",
    fill: "var(--blue)",
    line: { stroke: "var(--blue)", "stroke-width": 2.5 },
  },
  heavy_ball: {
    name: "heavy ball",
    shape: "square",
    fill: "var(--orange)",
    line: { stroke: "var(--orange)", "stroke-width": 2.5, "stroke-dasharray": "8 3" },
  },
};

const KNOBS_HERE = [
  KNOBS.momentum,
  {
    name: "noise_factor",
    label: "Model's noise, times",
    choices: FACTORS,
    format: formatNumber,
  },
  {
    name: "start_factor",
    label: "Model's start, times",
    choices: FACTORS,
    format: formatNumber,
  },
];

const times = (values, factor) => values.map((value) => factor * value);

// The mean of the model's logarithmic error over the measured points, as a factor.
function meanFactor(curve, points) {
  const logs = points.map(([batchSize, , steps]) => {
    const k = curve.findIndex((point) => point.batchSize >= batchSize);
    const [left, right] = [curve[Math.max(k - 1, 0)], curve[k]];
    const share =
      left === right ? 0 : Math.log(batchSize / left.batchSize) / Math.log(right.batchSize / left.batchSize);
    return (1 - share) * Math.log(left.steps) + share * Math.log(right.steps) - Math.log(steps);
  });
  return Math.exp(logs.reduce((sum, log) => sum + log, 0) / logs.length);
}

function describe({ curves, measured, isThere }) {
  if (isThere) return "The model starts at or below the target: it takes no steps.";
  if (Object.values(curves).includes(null)) {
    return "The search found no learning rate that reaches the target at every batch size.";
  }
  const parts = Object.entries(curves).map(([key, curve]) => {
    return `${formatNumber(meanFactor(curve, measured[key]))} for ${METHODS[key].name}`;
  });
  return `The model's steps over the measured ones, on average: ${parts.join(", ")}.`;
}

function render({ model, el }) {
  const measured = model.get("measured");
  const problem = model.get("problem");
  const target = model.get("target");
  const every = Object.values(measured).flat();
  const at = every.map(([size]) => size);
  const ends = [Math.min(...at) / BEYOND, Math.max(...at) * BEYOND];
  const octaves = Math.ceil(Math.log2(ends[1] / ends[0]));
  const sizes = Array.from(
    { length: octaves + 1 },
    (_, k) => ends[0] * (ends[1] / ends[0]) ** (k / octaves),
  );
  const range = [0.2 * Math.min(...every.map((p) => p[1])), 5 * Math.max(...every.map((p) => p[3]))];
  let shown = null;

  function* compute({ settings, view }) {
    const changed = {
      ...problem,
      noise: times(problem.noise, settings.noise_factor),
      second_moment: times(problem.second_moment, settings.start_factor),
    };
    if (initialRisk(changed) <= target) return { curves: {}, view, measured, isThere: true };
    const curves = {};
    for (const [key, momentum] of [
      ["sgd", 0],
      ["heavy_ball", settings.momentum],
    ]) {
      const best = yield* tuneRate(changed, momentum, sizes, target);
      curves[key] = best.includes(null)
        ? null
        : best.map(({ steps }, k) => ({ batchSize: sizes[k], steps }));
    }
    return { curves, view, measured, isThere: false };
  }

  const picture = plot({
    description: "Steps to the target against batch size; the text below says what it shows.",
    xAxis: logAxis("batch size", ends),
    yAxis: logAxis("steps to the target", range),
    height: (width) => Math.min(Math.max(0.52 * width, 290), 380),
    draw(pen) {
      const { x, y } = pen;
      for (const [key, { shape, fill, line }] of Object.entries(METHODS)) {
        const curve = shown?.curves[key];
        if (curve) pen.curve(curve.map(({ batchSize, steps }) => [batchSize, steps]), line);
        for (const [size, low, middle, high] of measured[key]) {
          pen.line(x(size), y(low), x(size), y(high), { stroke: fill, "stroke-width": 1.5 });
          pen.mark(x(size), y(middle), shape, { fill, stroke: "var(--paper)", "stroke-width": 0.75 });
        }
      }
    },
  });

  const work = inSlices(compute, (result, isLast) => {
    shown = result;
    picture.redraw();
    if (isLast) result.view.say(describe(result));
  });

  const signs = legend(
    Object.values(METHODS).flatMap(({ name, shape, fill, line }) => [
      [line, `${name}, model`],
      [{ shape, fill }, `${name}, measured`],
    ]),
  );
  return explorer({
    model,
    el,
    name: "Measured steps explorer",
    knobs: KNOBS_HERE,
    content: [signs, picture.node],
    parts: [picture, work],
    lines: [2, 3, 4],
    update: (settings, view) => work.request({ settings: { ...settings }, view }),
  });
}

export default { render };
