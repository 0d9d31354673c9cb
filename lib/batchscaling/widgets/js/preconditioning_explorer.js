// What preconditioning gives and takes as its power moves: the speed of the slowest direction and
// the floor against the power, and the risk against steps at one power and at none. The learning
// rate is a fraction of the largest stable one.

import {
  foldingSteps,
  heavyBall,
  initialRisk,
  precondition,
  riskParts,
  stabilityLimit,
  steadyStateRisk,
  stepGrid,
} from "./nqm.js";
import {
  KNOBS,
  explorer,
  formatCount,
  formatNumber,
  html,
  legend,
  linearAxis,
  logAxis,
  plot,
  riskRange,
} from "./ui.js";

const MAX_STEPS = 1e6;
const STEPS = stepGrid(MAX_STEPS);
const POWERS = Array.from({ length: 21 }, (_, k) => k / 20);
const FRACTIONS = [
  0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6,
  0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99,
];
const SLOWEST = 1e6; // e-folding steps at the top of the picture

const LOOKS = {
  chosen: { stroke: "var(--accent)", "stroke-width": 2.5 },
  swings: { fill: "var(--accent)", "fill-opacity": 0.3 },
  none: { stroke: "var(--muted)", "stroke-width": 2, "stroke-dasharray": "7 4" },
  start: { stroke: "var(--muted)", "stroke-width": 1.5, "stroke-dasharray": "1 4" },
  point: { fill: "var(--accent)", stroke: "var(--paper)", "stroke-width": 1.5 },
};

const KNOBS_HERE = [
  { ...KNOBS.power, choices: POWERS },
  {
    name: "lr_fraction",
    label: "Learning rate / largest",
    choices: FRACTIONS,
    format: formatNumber,
  },
  KNOBS.momentum,
  KNOBS.batch_size,
];

// The equivalent problem at a power, and heavy-ball momentum at the fraction of its largest rate.
function setUp(original, power, { lr_fraction, momentum }) {
  const problem = precondition(original, power);
  const lr = lr_fraction * stabilityLimit(problem, momentum);
  return { problem, lr, method: heavyBall(lr, momentum) };
}

// How fast the slowest direction is, in e-folding steps, and the floor.
function tradeOff(original, power, settings) {
  const { problem, lr, method } = setUp(original, power, settings);
  return {
    power,
    lr,
    folding: foldingSteps(problem, lr, settings.momentum),
    floor: steadyStateRisk(problem, method, settings.batch_size),
  };
}

function riskAt(original, power, settings) {
  const { problem, method } = setUp(original, power, settings);
  const { low, mean, high, noise } = riskParts(problem, method, STEPS);
  const point = (values, k) => values[k] + noise[k] / settings.batch_size;
  return STEPS.map((t, k) => [t, point(mean, k), point(low, k), point(high, k)]);
}

/** Everything the explorer shows of one setting of the knobs. */
function compute(problem, settings) {
  const powers = [...new Set([...POWERS, settings.power])].sort((a, b) => a - b);
  return {
    settings,
    curve: powers.map((power) => tradeOff(problem, power, settings)),
    chosen: tradeOff(problem, settings.power, settings),
    none: tradeOff(problem, 0, settings),
    risk: riskAt(problem, settings.power, settings),
    riskOfNone: riskAt(problem, 0, settings),
  };
}

function describe(start, { settings: { power }, chosen, none }) {
  const time = chosen.folding < 1 ? "less than 1 step" : `${formatNumber(chosen.folding)} steps`;
  const fate = chosen.floor > start ? ", above its start" : "";
  const now =
    `At power ${power} and learning rate ${formatNumber(chosen.lr)} the slowest direction shrinks ` +
    `by the factor e in ${time}, and the risk settles at ${formatNumber(chosen.floor)}${fate}.`;
  if (power === 0) return `${now} This is without preconditioning.`;
  const compared = (ratio, more, less, same) => {
    const size = formatNumber(Math.max(ratio, 1 / ratio));
    return size === "1" ? same : `${size} times ${ratio > 1 ? more : less}`;
  };
  const speed =
    chosen.folding < 1
      ? `more than ${formatNumber(none.folding)} times faster`
      : compared(none.folding / chosen.folding, "faster", "slower", "equally fast");
  const floor = compared(chosen.floor / none.floor, "higher", "lower", "as high");
  return `${now} Against power 0: ${speed}, floor ${floor}.`;
}

function render({ model, el }) {
  const problem = model.get("problem");
  const start = initialRisk(problem);
  const yRange = riskRange(start);
  let shown;

  // One of the two small plots: `value` of a trade-off against the power.
  const against = (description, yAxis, value, more = () => {}) =>
    plot({
      description,
      xAxis: linearAxis("power", [0, 1], [0, 0.25, 0.5, 0.75, 1]),
      yAxis,
      height: () => 200,
      draw(pen) {
        const { x, y, width, height } = pen;
        more(pen);
        const points = shown.curve.map((item) => [item.power, value(item)]);
        pen.curve(points, LOOKS.chosen);
        const at = Math.max(0, Math.min(y(value(shown.chosen)), height));
        const across = x(shown.settings.power);
        pen.mark(0, Math.max(0, Math.min(y(value(shown.none)), height)), "square", {
          fill: "var(--muted)",
          stroke: "var(--paper)",
          "stroke-width": 1.5,
        });
        pen.mark(across, at, "circle", LOOKS.point);
        const beyond = across > width / 2;
        const words = formatNumber(value(shown.chosen));
        const anchor = { "text-anchor": beyond ? "end" : "start" };
        const line = at < 40 ? at + 20 : at - 10;
        pen.label(beyond ? across - 8 : across + 8, line, words, anchor);
      },
    });

  const speed = against(
    "Steps in which the slowest direction shrinks by the factor e, against the power.",
    logAxis("e-folding steps of the slowest direction", [1, SLOWEST]),
    ({ folding }) => folding,
  );
  // Floors of batch size 1 and power 1 down to those of large batches and power 0.
  const floorTop = 10 * yRange[1] * 1e2;
  const floors = against(
    "Floor of the risk against the power.",
    logAxis("floor of the risk", [yRange[0] / 10, floorTop]),
    ({ floor }) => floor,
    (pen) => {
      const at = pen.y(start);
      pen.line(0, at, pen.width, at, LOOKS.start);
      pen.label(pen.width - 4, at - 6, "start", { "text-anchor": "end" });
    },
  );

  const curves = plot({
    description: "Risk against steps at the chosen power and at power 0.",
    xAxis: logAxis("steps", [1, MAX_STEPS], true),
    yAxis: logAxis("risk", [yRange[0], 100 * yRange[1]]),
    height: (width) => Math.min(Math.max(0.4 * width, 240), 290),
    draw(pen) {
      pen.curve(shown.riskOfNone, LOOKS.none);
      pen.area(
        shown.risk.map(([t, , low, high]) => [t, low, high]),
        LOOKS.swings,
      );
      pen.curve(shown.risk, LOOKS.chosen);
      pen.mark(0, pen.y(start), "circle", { fill: "var(--ink)" });
      pen.label(9, pen.y(start) - 8, `start ${formatNumber(start)}`, {});
    },
  });

  function update(settings, { say, accent }) {
    shown = compute(problem, { ...settings });
    accent(settings.momentum > 0 ? "orange" : "blue");
    [speed, floors, curves].forEach((part) => part.redraw());
    say(describe(start, shown));
  }

  const signs = legend([
    [LOOKS.chosen, "chosen power"],
    [LOOKS.none, "power 0"],
  ]);
  return explorer({
    model,
    el,
    name: "Preconditioning explorer",
    knobs: KNOBS_HERE,
    content: [signs, html("div", { class: "plots" }, speed.node, floors.node), curves.node],
    parts: [speed, floors, curves],
    lines: [3, 4, 6],
    update,
  });
}

export default { render };
