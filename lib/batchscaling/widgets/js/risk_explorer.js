// The risk of SGD and heavy-ball momentum on a noisy quadratic problem, against steps, with knobs
// for learning rate, momentum, batch size, preconditioning power and target.

import {
  heavyBall,
  initialRisk,
  precondition,
  riskParts,
  stabilityLimit,
  steadyStateRisk,
  stepGrid,
  stepsToTarget,
} from "./nqm.js";
import {
  KNOBS,
  button,
  explorer,
  formatCount,
  formatNumber,
  legend,
  logAxis,
  logChoices,
  plot,
  riskRange,
} from "./ui.js";

const MAX_STEPS = 1e6;
const HIGHEST_POWER = 0.75;
const STEPS = stepGrid(MAX_STEPS);

const LOOKS = {
  risk: { stroke: "var(--accent)", "stroke-width": 2.5 },
  swings: { fill: "var(--accent)", "fill-opacity": 0.3 },
  decay: { stroke: "var(--muted)", "stroke-width": 1.5, "stroke-dasharray": "7 4" },
  noise: { stroke: "var(--muted)", "stroke-width": 1.75, "stroke-dasharray": "1 4" },
  kept: { stroke: "var(--muted)", "stroke-width": 5, "stroke-opacity": 0.35 },
  floor: { stroke: "var(--accent)", "stroke-width": 1.25 },
  target: { stroke: "var(--green)", "stroke-width": 1.5, "stroke-dasharray": "10 3 2 3" },
};

function knobs(problem) {
  const highest = Math.max(...problem.curvature);
  const scales = [1 / highest, 1 / highest ** (1 - HIGHEST_POWER)];
  const start = initialRisk(problem);
  return [
    {
      name: "lr",
      label: "Learning rate",
      choices: logChoices(1e-3 * Math.min(...scales), 4 * Math.max(...scales), 20),
      format: formatNumber,
    },
    KNOBS.momentum,
    KNOBS.batch_size,
    {
      ...KNOBS.power,
      choices: KNOBS.power.choices.filter((power) => power <= HIGHEST_POWER),
    },
    {
      name: "target",
      label: "Target risk",
      choices: logChoices(10 * riskRange(start)[0], start, 10),
      format: formatNumber,
    },
  ];
}

/** Everything the explorer shows of one setting of the knobs. */
function compute(original, { lr, momentum, batch_size, power, target }) {
  const problem = precondition(original, power);
  const method = heavyBall(lr, momentum);
  const limit = stabilityLimit(problem, momentum);
  const stable = lr < limit;
  const parts = riskParts(problem, method, STEPS);
  const noise = parts.noise.map((value) => value / batch_size);
  const withNoise = (values) => values.map((value, k) => value + noise[k]);
  return {
    limit,
    stable,
    decay: parts.mean,
    noise,
    low: withNoise(parts.low),
    risk: withNoise(parts.mean),
    high: withNoise(parts.high),
    floor: stable ? steadyStateRisk(problem, method, batch_size) : Infinity,
    reached: stable ? stepsToTarget(problem, method, batch_size, target, MAX_STEPS) : null,
  };
}

function describe(start, settings, { limit, stable, floor, reached }) {
  const { momentum, power } = settings;
  const target = `the target ${formatNumber(settings.target)}`;
  if (!stable) {
    return (
      "Unstable: the risk grows without end. " +
      `With momentum ${momentum} and power ${power} the learning rate must be below ` +
      `${formatNumber(limit)}.`
    );
  }
  const name = momentum > 0 ? "heavy-ball momentum" : "SGD";
  const subject = power > 0 ? `Preconditioned ${name}` : name[0].toUpperCase() + name.slice(1);
  const begin = `${subject} starts at risk ${formatNumber(start)}`;
  const end = `settles at ${formatNumber(floor)}`;
  if (reached === null && floor > settings.target) {
    return `${begin} and ${end}. This floor is above ${target}, which is not reached.`;
  }
  if (reached === null) {
    return `${begin} and ${end}, but needs over ${formatCount(MAX_STEPS)} steps to ${target}.`;
  }
  const crossing = `${begin}, first reaches ${target} after ${formatCount(reached)} steps`;
  if (floor > settings.target) return `${crossing}, then rises again and ${end}.`;
  return `${crossing}, and ${end}.`;
}

function render({ model, el }) {
  const problem = model.get("problem");
  const start = initialRisk(problem);
  const yRange = riskRange(start);
  let target;
  let shown;
  let kept;

  // A curve is drawn up to where it leaves the picture.
  const points = (values, ...more) => {
    const last = values.findIndex((value) => value > 10 * yRange[1]);
    const count = last < 0 ? STEPS.length : last;
    return STEPS.slice(0, count).map((t, k) => [t, values[k], ...more.map((list) => list[k])]);
  };

  const picture = plot({
    description: "Risk against steps; the text below says what it shows.",
    xAxis: logAxis("steps", [1, MAX_STEPS], true),
    yAxis: logAxis("risk", yRange),
    height: (width) => Math.min(Math.max(0.52 * width, 290), 380),
    draw(pen) {
      const { x, y, width, height } = pen;
      pen.curve(points(kept.risk), LOOKS.kept);
      pen.curve(points(shown.decay), LOOKS.decay);
      pen.curve(points(shown.noise), LOOKS.noise);
      pen.area(points(shown.low, shown.high), LOOKS.swings);
      pen.curve(points(shown.risk), LOOKS.risk);
      const goal = y(target);
      pen.line(0, goal, width, goal, LOOKS.target);
      const floor = Math.max(0, Math.min(y(shown.floor), height));
      // The upper of the two lines has its label above it, the lower one below.
      const above = (line) => line - 7;
      const below = (line) => Math.min(line + 17, height - 6);
      const floorIsUpper = floor < goal;
      const right = { "text-anchor": "end" };
      const goalWords = `target ${formatNumber(target)}`;
      pen.label(width - 4, floorIsUpper ? below(goal) : above(goal), goalWords, right);
      if (shown.stable) {
        const [bottom, top] = yRange;
        pen.line(0, y(shown.floor), width, y(shown.floor), LOOKS.floor);
        const arrow = shown.floor > top ? "↑ " : shown.floor < bottom ? "↓ " : "";
        const words = `${arrow}floor ${formatNumber(shown.floor)}`;
        pen.label(width - 4, floorIsUpper ? above(floor) : below(floor), words, right);
      }
      pen.mark(0, y(start), "circle", { fill: "var(--ink)" });
      const beside = shown.stable ? y(start) - 8 : y(start) + 20; // clear of a rising curve
      pen.label(9, beside, `start ${formatNumber(start)}`, {});
      if (shown.reached !== null) {
        const at = x(shown.reached);
        pen.line(at, goal, at, height, { stroke: "var(--green)", "stroke-width": 1.5 });
        const look = { fill: "var(--green)", stroke: "var(--paper)", "stroke-width": 1.5 };
        pen.mark(at, goal, "circle", look);
        const words = `${formatCount(shown.reached)} steps`;
        const middle = Math.max(35, Math.min(at, width - 100)); // clear of the axis' name
        pen.label(middle, height + 38, words, { "text-anchor": "middle" });
      }
    },
  });

  function update(settings, { say, accent, reset }) {
    target = settings.target;
    shown = compute(problem, settings);
    if (reset || kept === undefined) kept = shown;
    accent(settings.momentum > 0 ? "orange" : "blue");
    picture.redraw();
    say(describe(start, settings, shown));
  }

  const keep = button("Keep this curve", () => {
    kept = shown;
    picture.redraw();
  });
  const lines = legend([
    [LOOKS.risk, "risk"],
    [LOOKS.decay, "decay of the start"],
    [LOOKS.noise, "noise"],
    [LOOKS.kept, "kept curve"],
  ]);
  return explorer({
    model,
    el,
    name: "Risk explorer",
    knobs: knobs(problem),
    content: [lines, picture.node],
    parts: [picture],
    buttons: [keep],
    lines: [2, 3, 4],
    update,
  });
}

export default { render };
