// How heavy-ball momentum moves each eigen-direction of a noisy quadratic problem: its two roots
// in the complex plane, and its share of the risk, with knobs for learning rate, momentum and
// batch size.

import {
  convergenceRate,
  dimension,
  foldingSteps,
  heavyBall,
  initialRisk,
  riskParts,
  roots,
  select,
  stabilityLimit,
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
  logChoices,
  plot,
} from "./ui.js";

const MAX_STEPS = 1e5;
const STEPS = stepGrid(MAX_STEPS);
const EDGE = 1.15; // of the plane that is shown; roots beyond it stand on it
const GROUPS = [
  { name: "steep", colour: "var(--orange)", shape: "triangle" },
  { name: "middle", colour: "var(--purple)", shape: "square" },
  { name: "flat", colour: "var(--blue)", shape: "circle" },
];
const LOOKS = {
  unit: { stroke: "var(--ink)", "stroke-width": 1.5 },
  complex: { stroke: "var(--muted)", "stroke-width": 1.5, "stroke-dasharray": "4 4" },
  start: { stroke: "var(--muted)", "stroke-width": 1.5, "stroke-dasharray": "1 4" },
  underDamped: (colour) => ({ fill: colour }),
  overDamped: (colour) => ({ fill: "var(--paper)", stroke: colour, "stroke-width": 1.75 }),
};

function knobs(problem) {
  const highest = Math.max(...problem.curvature);
  return [
    {
      name: "lr",
      label: "Learning rate",
      choices: logChoices(1e-3 / highest, 5 / highest, 20),
      format: formatNumber,
    },
    KNOBS.momentum,
    KNOBS.batch_size,
  ];
}

// The problem in three parts, each a third of the curvatures' range on a logarithmic scale.
function split(problem) {
  const [low, high] = [Math.min(...problem.curvature), Math.max(...problem.curvature)];
  const third = (h) =>
    Math.min(Math.floor((3 * Math.log(high / h)) / Math.log(high / low)), 2) || 0;
  return GROUPS.map((group, k) => ({
    ...group,
    problem: select(problem, (h) => third(h) === k),
  })).filter((group) => dimension(group.problem) > 0);
}

/** Everything the explorer shows of one setting of the knobs. */
function compute(problem, groups, { lr, momentum, batch_size }) {
  const method = heavyBall(lr, momentum);
  const isReal = (h) => roots(lr * h, momentum)[0][1] === 0;
  return {
    momentum,
    limit: stabilityLimit(problem, momentum),
    stable: lr < stabilityLimit(problem, momentum),
    slowest: convergenceRate(problem, lr, momentum),
    folding: foldingSteps(problem, lr, momentum),
    overDamped: dimension(select(problem, isReal)),
    groups: groups.map((group) => {
      const { mean, noise } = riskParts(group.problem, method, STEPS);
      return {
        ...group,
        roots: group.problem.curvature.map((h) => roots(lr * h, momentum)),
        risk: mean.map((value, k) => value + noise[k] / batch_size),
      };
    }),
  };
}

function describe(problem, { lr, momentum }, { limit, stable, slowest, folding, overDamped }) {
  const all = formatCount(dimension(problem));
  const verb = overDamped === 1 ? "is" : "are";
  const damping = `${formatCount(overDamped)} of ${all} directions ${verb} over-damped.`;
  const effective = `Effective learning rate: ${formatNumber(lr / (1 - momentum))}.`;
  if (!stable) {
    return (
      `Unstable: the learning rate must be below ${formatNumber(limit)}. ` +
      `${damping} The largest root has modulus ${formatRoot(slowest)}. ${effective}`
    );
  }
  const time = formatNumber(folding);
  return (
    `${damping} The slowest root, ${formatRoot(slowest)}, shrinks by the factor e in ${time} steps. ` +
    effective
  );
}

// With as many digits as tell it from 1.
function formatRoot(modulus) {
  const digits = 2 - Math.floor(Math.log10(Math.abs(1 - modulus) || 1));
  return String(Number(modulus.toFixed(Math.min(Math.max(digits, 3), 9))));
}

function render({ model, el }) {
  const problem = model.get("problem");
  const groups = split(problem);
  const start = initialRisk(problem);
  let shown;
  const height = (width) => Math.min(Math.max(width, 260), 340);

  const plane = plot({
    description: "The roots in the complex plane; the text below says what it shows.",
    xAxis: linearAxis("real part", [-EDGE, EDGE], [-1, 0, 1]),
    yAxis: linearAxis("imaginary part", [-EDGE, EDGE], [-1, 0, 1]),
    height,
    square: true,
    draw(pen) {
      const { x, y, width, height } = pen;
      const circle = (radius, attributes) => {
        const points = Array.from({ length: 121 }, (_, k) => {
          const angle = (Math.PI * k) / 60;
          return [radius * Math.cos(angle), radius * Math.sin(angle)];
        });
        pen.curve(points, attributes);
      };
      circle(1, LOOKS.unit);
      circle(Math.sqrt(shown.momentum), LOOKS.complex);
      const inside = (at, end) => Math.max(0, Math.min(at, end));
      for (const { colour, shape, roots } of shown.groups) {
        for (const [real, imaginary] of roots.flat()) {
          const look = imaginary === 0 ? LOOKS.overDamped(colour) : LOOKS.underDamped(colour);
          const place = [inside(x(real), width), inside(y(imaginary), height)];
          pen.mark(...place, shape, { size: 0.8, ...look });
        }
      }
    },
  });

  const shares = plot({
    description: "Risk against steps, stacked by groups; the text below says what it shows.",
    xAxis: logAxis("steps", [1, MAX_STEPS], true),
    yAxis: linearAxis("risk", [0, 1.25 * start], riskTicks(1.25 * start)),
    height,
    draw(pen) {
      let below = STEPS.map(() => 0);
      for (const { colour, risk } of [...shown.groups].reverse()) {
        // Far above the picture all is the same, and infinity cannot be drawn.
        const above = below.map((value, k) => Math.min(value + risk[k], 1e3 * start));
        const points = STEPS.map((t, k) => [t, below[k], above[k]]);
        pen.area(points, { fill: colour, stroke: "var(--paper)", "stroke-width": 1 });
        below = above;
      }
      const at = pen.y(start);
      pen.line(0, at, pen.width, at, LOOKS.start);
      pen.label(pen.width - 4, at - 6, `start ${formatNumber(start)}`, { "text-anchor": "end" });
    },
  });

  function update(settings, { say }) {
    shown = compute(problem, groups, settings);
    plane.redraw();
    shares.redraw();
    say(describe(problem, settings, shown));
  }

  const signs = legend([
    ...groups.map(({ name, shape, colour, problem: { curvature } }) => {
      const range = [Math.min(...curvature), Math.max(...curvature)].map(formatNumber);
      return [{ shape, fill: colour }, `${name}: h from ${range[0]} to ${range[1]}`];
    }),
    [{ shape: "circle", ...LOOKS.underDamped("var(--muted)") }, "under-damped"],
    [{ shape: "circle", ...LOOKS.overDamped("var(--muted)") }, "over-damped"],
    [LOOKS.unit, "|r| = 1"],
    [LOOKS.complex, "|r| = √momentum"],
  ]);
  return explorer({
    model,
    el,
    name: "Momentum explorer",
    knobs: knobs(problem),
    content: [signs, html("div", { class: "plots" }, plane.node, shares.node)],
    parts: [plane, shares],
    lines: [2, 3, 5],
    update,
  });
}

// About four round numbers from 0 to below `top`.
function riskTicks(top) {
  const unit = 10 ** Math.floor(Math.log10(top));
  const step = [0.2, 0.5, 1, 2, 5].map((k) => k * unit).find((size) => top / size <= 5);
  return Array.from({ length: Math.floor(top / step) + 1 }, (_, k) =>
    Number((k * step).toPrecision(2)),
  );
}

export default { render };
