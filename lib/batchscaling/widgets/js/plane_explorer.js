// Where the gradient is taken: paths of four methods in a valley of the plane, and their losses.

import { STEPS, contour, loss, paths } from "./plane.js";
import {
  KNOBS,
  explorer,
  formatNumber,
  html,
  legend,
  linearAxis,
  logAxis,
  logChoices,
  plot,
} from "./ui.js";

const LEVELS = [0.02, 0.1, 0.3, 0.6, 1, 1.5, 2];
const LOSSES = [1e-5, 10];

const METHODS = {
  gradient: { name: "gradient descent", color: "blue", shape: "circle", "stroke-dasharray": "none" },
  nesterov: { name: "Nesterov", color: "orange", shape: "triangle", "stroke-dasharray": "8 3" },
  fresh: { name: "extragradient", color: "green", shape: "square", "stroke-dasharray": "3 3" },
  past: { name: "past gradient", color: "purple", shape: "diamond", "stroke-dasharray": "9 3 2 3" },
};
const CONTOUR = { stroke: "var(--line)", "stroke-width": 1.2 };

const KNOBS_HERE = [
  { name: "lr", label: "Learning rate", choices: logChoices(1e-2, 10, 20), format: formatNumber },
  KNOBS.momentum,
  {
    name: "extrapolation",
    label: "Extrapolation rate",
    choices: [0, ...logChoices(1e-2, 10, 20)],
    format: formatNumber,
  },
  { name: "roundness", label: "Roundness", choices: logChoices(1e-2, 10, 20), format: formatNumber },
];

const line = ({ color, "stroke-dasharray": dashes }) => ({
  stroke: `var(--${color})`,
  "stroke-width": 2,
  "stroke-dasharray": dashes,
});

/** Everything the explorer shows of one setting of the knobs. */
function compute(settings) {
  const { roundness } = settings;
  const contours = LEVELS.flatMap((level) => {
    const right = contour(level, roundness);
    return [right, right.map(([x, y]) => [-x, y])];
  });
  const found = Object.entries(paths(settings)).map(([key, points]) => {
    const losses = points.map((point) => Math.min(loss(point, roundness), 1e300));
    return { ...METHODS[key], points, losses };
  });
  return { contours, found };
}

function describe({ found }) {
  const each = found.map(({ name, losses }) => `${formatNumber(losses[STEPS])} with ${name}`);
  return `Loss after ${STEPS} steps: ${each.join(", ")}. It starts at ${formatNumber(found[0].losses[0])}.`;
}

function render({ model, el }) {
  let shown;
  const height = (width) => Math.min(Math.max(0.75 * width, 250), 320);

  const plane = plot({
    description: "Contours of the loss and the paths of four methods; the text below says more.",
    xAxis: linearAxis("x", [-2, 2], [-2, -1, 0, 1, 2]),
    yAxis: linearAxis("y", [-2, 3], [-2, -1, 0, 1, 2, 3]),
    height,
    draw(pen) {
      for (const points of shown.contours) pen.curve(points, CONTOUR);
      for (const { points, ...look } of shown.found) pen.curve(clip(points), line(look));
      for (const { points, color, shape } of shown.found) {
        const [x, y] = points[STEPS];
        if (Math.abs(x) > 2 || y < -2 || y > 3) continue;
        pen.mark(pen.x(x), pen.y(y), shape, { fill: `var(--${color})` });
      }
    },
  });

  const losses = plot({
    description: "The loss of four methods against steps.",
    xAxis: linearAxis("step", [0, STEPS], [0, 20, 40, 60]),
    yAxis: logAxis("loss", LOSSES),
    height,
    draw(pen) {
      for (const { losses, ...look } of shown.found) {
        const points = losses.map((value, t) => [t, Math.min(value, 100 * LOSSES[1])]);
        pen.curve(points, line(look));
      }
    },
  });

  function update(settings, { say, accent }) {
    shown = compute(settings);
    accent("blue");
    plane.redraw();
    losses.redraw();
    say(describe(shown));
  }

  const signs = legend(Object.values(METHODS).map((look) => [line(look), look.name]));
  return explorer({
    model,
    el,
    name: "Plane explorer",
    knobs: KNOBS_HERE,
    content: [signs, html("div", { class: "plots" }, plane.node, losses.node)],
    parts: [plane, losses],
    lines: [2, 3, 6],
    update,
  });
}

// Points far outside the picture, of paths that run away, become its surroundings.
const clip = (points) => {
  const near = (value) => Math.max(-50, Math.min(value, 50));
  return points.map(([x, y]) => [near(x), near(y)]);
};

export default { render };
