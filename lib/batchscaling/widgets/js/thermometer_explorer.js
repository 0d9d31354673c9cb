// The temperature of SGD on a landscape with a wide and a sharp valley: where it spends its time,
// and where its finite steps leave the stochastic differential equation.

import {
  BARRIER,
  VALLEYS,
  gridAt,
  highestRate,
  loss,
  sharpShare,
  stationaryDensity,
  temperature,
  varianceRatio,
} from "./thermometer.js";
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

const VIEW = [-3.5, 4.5];
const RATES = logChoices(1e-3, 1, 20);
const MOST_DENSE = 2; // at the top of the picture
const WIDEST = 10; // ratio at the top of the picture
const LOSS_SCALE = 0.22; // so that the landscape fits the picture of the density
const LOSS_SHIFT = 0.75;

const LOOKS = {
  density: { stroke: "var(--accent)", "stroke-width": 2.5 },
  inside: { fill: "var(--accent)", "fill-opacity": 0.25 },
  landscape: { stroke: "var(--ink)", "stroke-width": 1.5, "stroke-dasharray": "6 3" },
  barrier: { stroke: "var(--muted)", "stroke-width": 1.5, "stroke-dasharray": "1 4" },
  wide: { stroke: "var(--green)", "stroke-width": 2.5, "stroke-dasharray": "8 3" },
  sharp: { stroke: "var(--purple)", "stroke-width": 2.5 },
};
const SIGNS = {
  wide: { shape: "circle", fill: "var(--green)" },
  sharp: { shape: "diamond", fill: "var(--purple)" },
};

const KNOBS_HERE = [
  { name: "lr", label: "Learning rate", choices: RATES, format: formatNumber },
  {
    name: "batch_size",
    label: "Batch size",
    choices: Array.from({ length: 11 }, (_, k) => 2 ** k),
    format: formatCount,
  },
  KNOBS.momentum,
];

/** Everything the explorer shows of one setting of the knobs. */
function compute({ lr, batch_size, momentum }) {
  const heat = temperature(lr, momentum, batch_size);
  const grid = gridAt(heat);
  const density = stationaryDensity(grid, heat);
  return {
    lr,
    heat,
    points: grid.map((theta, k) => [theta, density[k]]),
    sharp: sharpShare(grid, density),
    valleys: VALLEYS.map((valley) => ({
      ...valley,
      limit: highestRate(valley.curvature, momentum),
      ratio: varianceRatio(lr, momentum, valley.curvature),
      curve: RATES.map((rate) => {
        const ratio = varianceRatio(rate, momentum, valley.curvature);
        return [rate, Math.min(ratio, 1e3 * WIDEST)];
      }),
    })),
  };
}

const percent = (part) => `${Number((100 * part).toPrecision(3))}\u00a0%`;

function describe({ heat, sharp, valleys }) {
  const times = ({ name, ratio, limit }) =>
    Number.isFinite(ratio)
      ? `${formatNumber(ratio)} times in the ${name} valley`
      : `none in the ${name} valley, which SGD leaves from rate ${formatNumber(limit)} on`;
  return (
    `Temperature ${formatNumber(heat)}. By the equation ${percent(1 - sharp)} of the time is spent ` +
    `in the wide valley and ${percent(sharp)} in the sharp one. SGD's own variance over the ` +
    `equation's: ${valleys.map(times).join(", ")}.`
  );
}

function render({ model, el }) {
  let shown;
  const height = (width) => Math.min(Math.max(0.75 * width, 230), 290);

  const where = plot({
    description: "The landscape, and the density of the parameter; the text below says more.",
    xAxis: linearAxis("parameter θ", VIEW, [-3, -2, -1, 0, 1, 2, 3, 4]),
    yAxis: linearAxis("density", [0, MOST_DENSE], [0, 0.5, 1, 1.5, 2]),
    height,
    draw(pen) {
      const { x, y, height } = pen;
      const across = x(BARRIER);
      pen.line(across, 0, across, height, LOOKS.barrier);
      const points = shown.points.map(([theta, p]) => [theta, Math.min(p, 10 * MOST_DENSE)]);
      pen.area(
        points.map(([theta, p]) => [theta, 0, p]),
        LOOKS.inside,
      );
      pen.curve(points, LOOKS.density);
      const landscape = Array.from({ length: 241 }, (_, k) => {
        const theta = VIEW[0] + ((VIEW[1] - VIEW[0]) * k) / 240;
        return [theta, LOSS_SHIFT + LOSS_SCALE * loss(theta)];
      });
      pen.curve(landscape, LOOKS.landscape);
      for (const { name, at } of shown.valleys) {
        const { shape, ...look } = SIGNS[name];
        pen.mark(x(at), y(LOSS_SHIFT + LOSS_SCALE * loss(at)), shape, look);
      }
    },
  });

  const variance = plot({
    description: "SGD's variance over the equation's against the learning rate.",
    xAxis: logAxis("learning rate", [RATES[0], RATES[RATES.length - 1]]),
    yAxis: logAxis("variance, SGD / equation", [1, WIDEST]),
    height,
    draw(pen) {
      const { x, y, width, height } = pen;
      for (const { name, curve } of shown.valleys) pen.curve(curve, LOOKS[name]);
      const across = Math.max(0, Math.min(x(shown.lr), width));
      for (const { name, ratio } of shown.valleys) {
        const { shape, ...look } = SIGNS[name];
        const at = Number.isFinite(ratio) ? Math.max(0, Math.min(y(ratio), height)) : 0;
        pen.mark(across, at, shape, look);
      }
    },
  });

  function update(settings, { say, accent }) {
    shown = compute(settings);
    accent(settings.momentum > 0 ? "orange" : "blue");
    where.redraw();
    variance.redraw();
    say(describe(shown));
  }

  const signs = legend([
    [LOOKS.density, "density of the parameter"],
    [LOOKS.landscape, "loss, on its own scale"],
    ...VALLEYS.map(({ name, curvature }) => [
      SIGNS[name],
      `${name} valley, curvature ${formatNumber(curvature)}`,
    ]),
  ]);
  return explorer({
    model,
    el,
    name: "Thermometer explorer",
    knobs: KNOBS_HERE,
    content: [signs, html("div", { class: "plots" }, where.node, variance.node)],
    parts: [where, variance],
    lines: [3, 4, 7],
    update,
  });
}

export default { render };
