// Steps to a target risk against batch size, for SGD and for heavy-ball momentum, each at its best
// learning rate, with knobs for the spectrum's exponent, preconditioning power, momentum, target.

import { initialRisk, powerLaw, precondition, quantize } from "./nqm.js";
import { tuneRate } from "./tuning.js";
import {
  KNOBS,
  explorer,
  formatCount,
  formatNumber,
  inSlices,
  legend,
  logAxis,
  logChoices,
  plot,
} from "./ui.js";

const DIM = 10_000;
const BINS = 32;
const BATCH_SIZES = Array.from({ length: 21 }, (_, k) => 2 ** k);
const HUGE_BATCH = 2 ** 40; // stands for the limit of large batches
const STEPS = [1, 1e8];

const METHODS = {
  sgd: {
    name: "SGD",
    mark: { shape: "circle", fill: "var(--blue)" },
    line: { stroke: "var(--blue)", "stroke-width": 2.5 },
    limit: { stroke: "var(--blue)", "stroke-width": 1.25, "stroke-dasharray": "2 4" },
  },
  heavyBall: {
    name: "heavy ball",
    mark: { shape: "square", fill: "var(--orange)" },
    line: { stroke: "var(--orange)", "stroke-width": 2.5, "stroke-dasharray": "8 3" },
    limit: { stroke: "var(--orange)", "stroke-width": 1.25, "stroke-dasharray": "2 4" },
  },
};

const KNOBS_HERE = [
  {
    name: "exponent",
    label: "Spectrum exponent",
    choices: Array.from({ length: 41 }, (_, k) => k / 20),
    format: formatCount,
  },
  KNOBS.power,
  KNOBS.momentum,
  {
    name: "target",
    label: "Target risk",
    choices: logChoices(3e-3, 1, 10),
    format: formatNumber,
  },
];

// The curve of one momentum: points {batchSize, steps}, and the critical batch size, where perfect
// scaling from batch size 1 meets the floor. Null where there is no such curve.
function* curveOf(problem, momentum, target) {
  if (initialRisk(problem) <= target) return null;
  const sizes = [...BATCH_SIZES, HUGE_BATCH];
  const best = yield* tuneRate(problem, momentum, sizes, target);
  if (best.includes(null)) return null;
  const points = sizes.map((batchSize, k) => ({ batchSize, ...best[k] }));
  const floor = points.pop().steps;
  const examples = points[0].steps;
  return { points, floor, examples, critical: examples / floor };
}

function describe({ settings: { momentum, target }, start, sgd, heavyBall }) {
  if (start <= target) {
    return `The problem starts at risk ${formatNumber(start)}, at or below the target.`;
  }
  if (sgd === null || heavyBall === null) {
    return "The search found no learning rate that reaches the target at every batch size.";
  }
  const small = (sgd.examples / heavyBall.examples).toPrecision(3);
  const large = (sgd.floor / heavyBall.floor).toPrecision(3);
  const counts = `${formatCount(sgd.floor)} to ${formatCount(heavyBall.floor)}`;
  const critical = [sgd, heavyBall].map((curve) => formatCount(Math.round(curve.critical)));
  return (
    `Momentum ${momentum} divides SGD's steps by ${small} at batch size 1 and by ${large} at very ` +
    `large ones (from ${counts}). Critical batch sizes: ${critical[0]} for SGD, ${critical[1]} ` +
    "for momentum."
  );
}

function render({ model, el }) {
  let shown = null;
  let known = {}; // SGD's curve, which the momentum's knob leaves as it is

  function* compute({ settings, view }) {
    const { exponent, power, momentum, target } = settings;
    const problem = precondition(quantize(powerLaw(DIM, exponent), BINS), power);
    const key = [exponent, power, target].join();
    if (known.key !== key) known = { key, sgd: yield* curveOf(problem, 0, target) };
    const heavyBall = yield* curveOf(problem, momentum, target);
    return { settings, view, start: initialRisk(problem), sgd: known.sgd, heavyBall };
  }

  const picture = plot({
    description: "Steps to the target against batch size; the text below says what it shows.",
    xAxis: logAxis("batch size", [1, BATCH_SIZES.at(-1)]),
    yAxis: logAxis("steps to the target, at the best learning rate", STEPS),
    height: (width) => Math.min(Math.max(0.52 * width, 290), 380),
    draw(pen) {
      const { x, y, width } = pen;
      for (const [key, { mark, line, limit }] of Object.entries(METHODS)) {
        const curve = shown?.[key];
        if (!curve) continue;
        const { points, floor, examples, critical } = curve;
        const edge = Math.min(examples, BATCH_SIZES.at(-1));
        pen.curve(
          [
            [1, examples],
            [edge, examples / edge],
          ],
          limit,
        );
        pen.line(0, y(floor), width, y(floor), limit);
        pen.curve(
          points.map(({ batchSize, steps }) => [batchSize, steps]),
          line,
        );
        const at = Math.min(x(critical), width);
        const { fill } = mark;
        pen.mark(at, y(floor), "diamond", {
          fill: "var(--paper)",
          stroke: fill,
          "stroke-width": 2,
        });
        for (const { batchSize, steps } of points) {
          const { shape } = mark;
          const look = { fill, stroke: "var(--paper)", "stroke-width": 0.75 };
          pen.mark(x(batchSize), y(steps), shape, look);
        }
      }
    },
  });

  const work = inSlices(compute, (result, isLast) => {
    shown = result;
    picture.redraw();
    if (isLast) result.view.say(describe(result));
  });

  const signs = legend([
    ...Object.values(METHODS).map(({ name, mark, line }) => [{ ...mark, line }, name]),
    [
      { stroke: "var(--muted)", "stroke-width": 1.25, "stroke-dasharray": "2 4" },
      "perfect scaling and floor",
    ],
    [
      { shape: "diamond", fill: "var(--paper)", stroke: "var(--muted)", "stroke-width": 2 },
      "critical batch size",
    ],
  ]);
  return explorer({
    model,
    el,
    name: "Steps explorer",
    knobs: KNOBS_HERE,
    content: [signs, picture.node],
    parts: [picture, work],
    lines: [3, 4, 6],
    update: (settings, view) => work.request({ settings: { ...settings }, view }),
  });
}

export default { render };
