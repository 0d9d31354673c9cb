// The risk of SGD and heavy-ball momentum on a noisy quadratic problem, against steps, with knobs
// for learning rate, momentum, batch size, preconditioning power and target.

import {
  heavyBall,
  precondition,
  riskParts,
  stabilityLimit,
  steadyStateRisk,
  stepsToTarget,
} from "./nqm.js";
import {
  button,
  formatCount,
  formatNumber,
  frame,
  html,
  legend,
  logChoices,
  logPlot,
  onceAFrame,
  slider,
  statusLine,
} from "./ui.js";

const MAX_STEPS = 1e6;
const HIGHEST_POWER = 0.75;

// The first 16 steps, then 16 in each octave: from one to the next is a power of two.
const STEPS = [0];
for (let t = 1; t < MAX_STEPS; t += 2 ** Math.max(0, Math.floor(Math.log2(t)) - 4)) STEPS.push(t);
STEPS.push(MAX_STEPS);

const LOOKS = {
  risk: { stroke: "var(--accent)", "stroke-width": 2.5 },
  decay: { stroke: "var(--muted)", "stroke-width": 1.5, "stroke-dasharray": "7 4" },
  noise: { stroke: "var(--muted)", "stroke-width": 1.75, "stroke-dasharray": "1 4" },
  kept: { stroke: "var(--muted)", "stroke-width": 5, "stroke-opacity": 0.35 },
  floor: { stroke: "var(--accent)", "stroke-width": 1.25 },
  target: { stroke: "var(--green)", "stroke-width": 1.5, "stroke-dasharray": "10 3 2 3" },
};

function knobs(problem, settings) {
  const highest = Math.max(...problem.curvature);
  const scales = [1 / highest, 1 / highest ** (1 - HIGHEST_POWER)];
  const [bottom] = riskRange(problem);
  const oneMinus = logChoices(1e-3, 1, 20).map((rest) => Number((1 - rest).toFixed(6)));
  const all = {
    lr: ["Learning rate", logChoices(1e-3 * Math.min(...scales), 4 * Math.max(...scales), 20)],
    momentum: ["Momentum", oneMinus],
    batch_size: ["Batch size", Array.from({ length: 15 }, (_, k) => 2 ** k)],
    power: ["Preconditioning power", Array.from({ length: 16 }, (_, k) => k / 20)],
    target: ["Target risk", logChoices(10 * bottom, startOf(problem), 10)],
  };
  return Object.entries(all).map(([name, [label, choices]]) => {
    const format = name === "lr" || name === "target" ? formatNumber : formatCount;
    return { name, label, choices, format, value: settings[name] };
  });
}

function startOf({ curvature, second_moment, counts }) {
  return curvature.reduce((sum, h, i) => sum + (counts[i] * h * second_moment[i]) / 2, 0);
}

function riskRange(problem) {
  const top = 10 ** Math.ceil(Math.log10(startOf(problem)));
  return [top / 1e5, top];
}

/** Everything the explorer shows of one setting of the knobs. */
function compute(original, { lr, momentum, batch_size, power, target }) {
  const problem = precondition(original, power);
  const method = heavyBall(lr, momentum);
  const limit = stabilityLimit(problem, momentum);
  const stable = lr < limit;
  const parts = riskParts(problem, method, STEPS);
  const noise = parts.noise.map((value) => value / batch_size);
  return {
    limit,
    stable,
    decay: parts.decay,
    noise,
    risk: noise.map((value, k) => value + parts.decay[k]),
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
  const names = ["lr", "momentum", "batch_size", "power", "target"];
  const settings = Object.fromEntries(names.map((name) => [name, model.get(name)]));
  const initial = { ...settings };
  const start = startOf(problem);
  const yRange = riskRange(problem);
  let shown = compute(problem, settings);
  let kept = shown;

  const points = (values) => {
    const last = values.findIndex((value) => value > 10 * yRange[1]);
    const count = last < 0 ? STEPS.length : last;
    return STEPS.slice(0, count).map((t, k) => [t, values[k]]);
  };

  const plot = logPlot({
    description: "Risk against steps; the text below says what it shows.",
    xLabel: "steps",
    yLabel: "risk",
    xRange: [1, MAX_STEPS],
    xZero: true,
    yRange,
    draw(pen) {
      const { x, y, width, height } = pen;
      pen.curve(points(kept.risk), LOOKS.kept);
      pen.curve(points(shown.decay), LOOKS.decay);
      pen.curve(points(shown.noise), LOOKS.noise);
      pen.curve(points(shown.risk), LOOKS.risk);
      const target = y(settings.target);
      pen.line(0, target, width, target, LOOKS.target);
      const floor = Math.max(0, Math.min(y(shown.floor), height));
      // The upper of the two lines has its label above it, the lower one below.
      const above = (line) => line - 7;
      const below = (line) => Math.min(line + 17, height - 6);
      const floorIsUpper = floor < target;
      const right = { "text-anchor": "end" };
      const targetWords = `target ${formatNumber(settings.target)}`;
      pen.label(width - 4, floorIsUpper ? below(target) : above(target), targetWords, right);
      if (shown.stable) {
        const [bottom, top] = yRange;
        pen.line(0, y(shown.floor), width, y(shown.floor), LOOKS.floor);
        const arrow = shown.floor > top ? "↑ " : shown.floor < bottom ? "↓ " : "";
        const words = `${arrow}floor ${formatNumber(shown.floor)}`;
        pen.label(width - 4, floorIsUpper ? above(floor) : below(floor), words, right);
      }
      pen.dot(0, y(start), { fill: "var(--ink)" });
      const beside = shown.stable ? y(start) - 8 : y(start) + 20; // clear of a rising curve
      pen.label(9, beside, `start ${formatNumber(start)}`, {});
      if (shown.reached !== null) {
        const at = x(shown.reached);
        pen.line(at, target, at, height, { stroke: "var(--green)", "stroke-width": 1.5 });
        pen.dot(at, target, { fill: "var(--green)", stroke: "var(--paper)", "stroke-width": 1.5 });
        const words = `${formatCount(shown.reached)} steps`;
        const middle = Math.max(35, Math.min(at, width - 100)); // clear of the axis' name
        pen.label(middle, height + 38, words, { "text-anchor": "middle" });
      }
    },
  });

  const status = statusLine();
  const drawing = onceAFrame(() => {
    shown = compute(problem, settings);
    show();
  });
  const change = () => {
    status.wait();
    drawing.request();
  };
  function show() {
    root.style.setProperty("--accent", settings.momentum > 0 ? "var(--orange)" : "var(--blue)");
    plot.redraw();
    status.say(describe(start, settings, shown));
  }

  const sliders = knobs(problem, settings).map((knob) => {
    const onInput = (value) => {
      settings[knob.name] = value;
      model.set(knob.name, value);
      model.save_changes();
      change();
    };
    const control = slider({ ...knob, onInput });
    const follow = () => {
      if (model.get(knob.name) === settings[knob.name]) return;
      settings[knob.name] = model.get(knob.name);
      control.set(settings[knob.name]);
      change();
    };
    model.on(`change:${knob.name}`, follow);
    return { ...control, name: knob.name, stop: () => model.off(`change:${knob.name}`, follow) };
  });

  const keep = button("Keep this curve", () => {
    kept = shown;
    plot.redraw();
  });
  const reset = button("Reset", () => {
    Object.assign(settings, initial);
    for (const { name, set } of sliders) {
      set(initial[name]);
      model.set(name, initial[name]);
    }
    model.save_changes();
    shown = kept = compute(problem, settings);
    show();
  });

  const root = frame(
    "Risk explorer",
    legend([
      [LOOKS.risk, "risk"],
      [LOOKS.decay, "decay of the start"],
      [LOOKS.noise, "noise"],
      [LOOKS.kept, "kept curve"],
    ]),
    plot.node,
    status.node,
    html(
      "div",
      { class: "controls" },
      ...sliders.map(({ node }) => node),
      html("div", { class: "buttons" }, keep, reset),
    ),
  );
  el.append(root);
  show();

  return () => {
    [plot, status, drawing, ...sliders].forEach((part) => part.stop());
    root.remove();
  };
}

export default { render };
