// The pieces every explorer is built of: labelled sliders, a status line for eyes and screen
// readers, plots, and the frame that ties them to a notebook's model.

const STYLE = `
.batchscaling-explorer {
  --day-ink: #222832; --day-muted: #48566b; --day-paper: #ffffff; --day-line: #c9ccd1;
  --ink: var(--pst-color-text-base, var(--jp-content-font-color1, var(--day-ink)));
  --muted: var(--pst-color-text-muted, var(--jp-content-font-color2, var(--day-muted)));
  --paper: var(--pst-color-background, var(--jp-layout-color0, var(--day-paper)));
  --line: var(--pst-color-border, var(--jp-border-color2, var(--day-line)));
  --blue: color-mix(in oklab, #0072b2 78%, var(--ink));
  --orange: color-mix(in oklab, #d55e00 78%, var(--ink));
  --green: color-mix(in oklab, #007a5e 78%, var(--ink));
  --purple: color-mix(in oklab, #9b3f86 78%, var(--ink));
  --accent: var(--blue);
  container-type: inline-size;
  box-sizing: border-box;
  margin: 0.5rem 0 1rem;
  padding: 1rem;
  border: 1px solid var(--line);
  border-radius: 0.5rem;
  background: var(--paper);
  color: var(--ink);
  font-size: 0.9375rem;
  line-height: 1.45;
}
@media (prefers-color-scheme: dark) {
  .batchscaling-explorer {
    --day-ink: #e6e8ec; --day-muted: #a9b1bd; --day-paper: #14181e; --day-line: #48566b;
  }
}
.batchscaling-explorer *, .batchscaling-explorer *::before { box-sizing: border-box; }
.batchscaling-explorer svg { display: block; overflow: visible; }
.batchscaling-explorer .plot { min-width: 0; width: 100%; }
.batchscaling-explorer .plots {
  display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 0.5rem 1.25rem;
}
.batchscaling-explorer .plot text { fill: var(--muted); font: 0.8125rem/1 inherit; font-size: 13px; }
.batchscaling-explorer .plot text.strong { fill: var(--ink); font-weight: 600; }
.batchscaling-explorer .plot .halo text {
  paint-order: stroke; stroke: var(--paper); stroke-width: 4px; stroke-linejoin: round;
}
.batchscaling-explorer .plot .grid { stroke: var(--line); stroke-width: 1; opacity: 0.45; }
.batchscaling-explorer .plot .axis { stroke: var(--muted); stroke-width: 1; }
.batchscaling-explorer .curve { fill: none; stroke-linejoin: round; stroke-linecap: round; }
.batchscaling-explorer .legend {
  display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem;
  margin: 0 0 0.5rem; padding: 0; list-style: none; color: var(--muted); font-size: 0.875rem;
}
.batchscaling-explorer .legend li {
  display: flex; align-items: center; gap: 0.4rem; margin: 0; padding: 0;
}
.batchscaling-explorer .status {
  margin: 0.5rem 0 0.75rem; padding-left: 0.75rem;
  min-height: calc(1.45em * var(--wide-lines));
  border-left: 3px solid var(--accent);
}
.batchscaling-explorer .controls {
  display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 0.5rem 1.25rem;
}
@container (max-width: 710px) {
  .batchscaling-explorer .controls { grid-template-columns: repeat(2, minmax(0, 1fr)); }
}
@container (max-width: 600px) {
  .batchscaling-explorer .plots { grid-template-columns: minmax(0, 1fr); }
  .batchscaling-explorer .status { min-height: calc(1.45em * var(--middle-lines)); }
}
@container (max-width: 430px) {
  .batchscaling-explorer .status { min-height: calc(1.45em * var(--narrow-lines)); }
}
.batchscaling-explorer .slider { display: block; margin: 0; font-weight: 400; }
.batchscaling-explorer .slider .caption {
  display: flex; justify-content: space-between; gap: 0.75rem; white-space: nowrap;
}
.batchscaling-explorer .slider .value { font-weight: 600; font-variant-numeric: tabular-nums; }
.batchscaling-explorer input[type="range"] {
  appearance: none; display: block; width: 100%; height: 1.75rem; margin: 0; padding: 0;
  background: none; border: 0; cursor: pointer; touch-action: pan-y;
}
.batchscaling-explorer input[type="range"]::-webkit-slider-runnable-track {
  height: 4px; border-radius: 2px;
  background: linear-gradient(to right, var(--accent) var(--filled), var(--line) var(--filled));
}
.batchscaling-explorer input[type="range"]::-moz-range-track {
  height: 4px; border-radius: 2px; background: var(--line);
}
.batchscaling-explorer input[type="range"]::-moz-range-progress {
  height: 4px; border-radius: 2px; background: var(--accent);
}
.batchscaling-explorer input[type="range"]::-webkit-slider-thumb {
  appearance: none; width: 18px; height: 18px; margin-top: -7px;
  border: 2px solid var(--paper); border-radius: 50%; background: var(--accent);
}
.batchscaling-explorer input[type="range"]::-moz-range-thumb {
  width: 18px; height: 18px; border: 2px solid var(--paper); border-radius: 50%;
  background: var(--accent);
}
.batchscaling-explorer input[type="range"]:focus-visible,
.batchscaling-explorer button:focus-visible {
  outline: 2px solid var(--accent); outline-offset: 2px; border-radius: 4px;
}
.batchscaling-explorer .buttons { display: flex; flex-wrap: wrap; gap: 0.5rem; align-items: center; }
.batchscaling-explorer button {
  min-height: 2.25rem; padding: 0.25rem 0.9rem; border: 1px solid var(--muted);
  border-radius: 0.375rem; background: none; color: var(--ink); font: inherit; cursor: pointer;
}
.batchscaling-explorer button:hover { border-color: var(--accent); color: var(--accent); }
/* On a phone the knobs stay at the bottom of the screen while the plots scroll above them. */
@container (max-width: 430px) {
  .batchscaling-explorer .controls {
    position: sticky; bottom: 0; z-index: 1;
    margin: 0 -1rem -1rem; padding: 0.5rem 1rem;
    border-top: 1px solid var(--line); border-radius: 0 0 0.5rem 0.5rem;
    background: var(--paper); font-size: 0.8125rem;
  }
  .batchscaling-explorer .slider .caption { display: block; }
  .batchscaling-explorer .slider .caption span { display: block; }
}
`;

const SVG = "http://www.w3.org/2000/svg";

/** A new HTML element; a function among the attributes listens for the event of that name. */
export function html(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

// A new SVG element.
function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

// The bordered, styled frame of an explorer.
function frame(name, ...children) {
  const style = html("style", {}, STYLE);
  return html(
    "section",
    { class: "batchscaling-explorer", "aria-label": name },
    style,
    ...children,
  );
}

/**
 * Show an explorer in `el`. Each knob is {name, label, choices, format}: its slider, the model's
 * value of that name and `settings[name]` follow one another. `content` stands above the words;
 * `buttons` stand beside "Reset". `update(settings, view)` is called at the start and at most once
 * a frame after changes, with `reset` true where all knobs went back to the start; it draws, and
 * then calls `view.say(words)`. `view.accent(colour)` colours knobs and lines. `lines` is the number
 * of lines kept free for the words in a wide, a middle and a narrow frame, so that nothing jumps.
 *
 * Returns a function that takes the explorer away; `parts` are stopped with it.
 */
export function explorer({ model, el, name, knobs, content, parts, buttons = [], lines, update }) {
  const settings = Object.fromEntries(knobs.map((knob) => [knob.name, model.get(knob.name)]));
  const initial = { ...settings };
  const status = statusLine();
  const view = {
    say: status.say,
    accent: (colour) => root.style.setProperty("--accent", `var(--${colour})`),
    reset: false,
  };
  const drawing = onceAFrame(() => {
    update(settings, view);
    view.reset = false;
  });
  const change = () => {
    status.wait();
    drawing.request();
  };

  const sliders = knobs.map((knob) => {
    const onInput = (value) => {
      settings[knob.name] = value;
      model.set(knob.name, value);
      model.save_changes();
      change();
    };
    const control = slider({ ...knob, value: settings[knob.name], onInput });
    const follow = () => {
      if (model.get(knob.name) === settings[knob.name]) return;
      settings[knob.name] = model.get(knob.name);
      control.set(settings[knob.name]);
      change();
    };
    model.on(`change:${knob.name}`, follow);
    return { ...control, name: knob.name, stop: () => model.off(`change:${knob.name}`, follow) };
  });

  const reset = button("Reset", () => {
    Object.assign(settings, initial);
    for (const { name, set } of sliders) {
      set(initial[name]);
      model.set(name, initial[name]);
    }
    model.save_changes();
    view.reset = true;
    change();
  });

  const root = frame(
    name,
    ...content,
    status.node,
    html(
      "div",
      { class: "controls" },
      ...sliders.map(({ node }) => node),
      html("div", { class: "buttons" }, ...buttons, reset),
    ),
  );
  ["wide", "middle", "narrow"].forEach((width, k) => {
    root.style.setProperty(`--${width}-lines`, lines[k]);
  });
  el.append(root);
  status.wait();
  update(settings, view);

  return () => {
    [status, drawing, ...sliders, ...parts].forEach((part) => part.stop());
    root.remove();
  };
}

/** A number with three significant digits, such as 0.0123 or 6.1×10⁻⁵. */
export function formatNumber(value) {
  if (!Number.isFinite(value)) return "∞";
  if (value === 0 || (value >= 1e-3 && value < 1e4)) return String(Number(value.toPrecision(3)));
  const [digits, exponent] = value.toExponential(2).split("e");
  return `${Number(digits)}×${powerOfTen(Number(exponent))}`;
}

/** A whole number with commas. */
export function formatCount(value) {
  return value.toLocaleString("en-US");
}

function powerOfTen(exponent) {
  if (exponent === 0 || exponent === 1) return String(10 ** exponent);
  return `10${[...String(exponent)].map((c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[c] ?? "⁻").join("")}`;
}

/** Numbers with two digits, evenly spaced in the logarithm, from `low` to `high`. */
export function logChoices(low, high, perDecade) {
  const from = Math.round(perDecade * Math.log10(low));
  const to = Math.round(perDecade * Math.log10(high));
  return Array.from({ length: to - from + 1 }, (_, k) => {
    return Number((10 ** ((from + k) / perDecade)).toPrecision(2));
  });
}

// Knobs that several explorers have.
export const KNOBS = {
  momentum: {
    name: "momentum",
    label: "Momentum",
    choices: logChoices(1e-3, 1, 20).map((rest) => Number((1 - rest).toFixed(6))),
    format: String,
  },
  batch_size: {
    name: "batch_size",
    label: "Batch size",
    choices: Array.from({ length: 15 }, (_, k) => 2 ** k),
    format: formatCount,
  },
  power: {
    name: "power",
    label: "Preconditioning power",
    choices: Array.from({ length: 16 }, (_, k) => k / 20),
    format: formatCount,
  },
};

/** The risks a plot shows of a problem that starts at `start`: five decades. */
export function riskRange(start) {
  const top = 10 ** Math.ceil(Math.log10(start));
  return [top / 1e5, top];
}

/**
 * A labelled slider over a list of numbers; its first value joins the list if it is not in it.
 * Returns its node and `set(value)`.
 */
function slider({ label, choices, value, format, onInput }) {
  let values = [];
  const shown = html("span", { class: "value", "aria-hidden": "true" });
  const input = html("input", { type: "range", min: 0, step: 1, "aria-label": label });
  const show = () => {
    const text = format(values[input.value]);
    shown.textContent = text;
    input.setAttribute("aria-valuetext", text);
    input.style.setProperty("--filled", `${(100 * input.value) / Math.max(input.max, 1)}%`);
  };
  const set = (next) => {
    values = [...new Set([...choices, next])].sort((a, b) => a - b);
    input.max = values.length - 1;
    input.value = values.indexOf(next);
    show();
  };
  input.addEventListener("input", () => {
    show();
    onInput(values[input.value]);
  });
  set(value);
  const caption = html("span", { class: "caption" }, html("span", {}, label), shown);
  return { node: html("label", { class: "slider" }, caption, input), set };
}

/** A push button. */
export function button(text, click) {
  return html("button", { type: "button", click }, text);
}

/** A legend; each entry is [the attributes of its line or, with a shape, mark, its text]. */
export function legend(entries) {
  const items = entries.map(([{ shape, ...attributes }, text]) => {
    const sample = shape
      ? mark(15, 6, shape, attributes)
      : svg("line", { x1: 1, x2: 29, y1: 6, y2: 6, ...attributes });
    return html(
      "li",
      {},
      svg("svg", { width: 30, height: 12, "aria-hidden": "true" }, sample),
      text,
    );
  });
  return html("ul", { class: "legend" }, ...items);
}

/**
 * A line of words that changes once the knobs rest, so that a screen reader is not flooded.
 * From `wait()` on until the words of `say(words)` stand there, the line is marked as busy.
 */
function statusLine() {
  const node = html("p", { class: "status", role: "status", "aria-live": "polite" });
  let timer;
  const wait = () => node.setAttribute("aria-busy", "true");
  const write = (words) => {
    node.textContent = words;
    node.removeAttribute("aria-busy");
  };
  return {
    node,
    wait,
    say(words) {
      wait();
      clearTimeout(timer);
      timer = setTimeout(write, node.textContent === "" ? 0 : 200, words);
    },
    stop: () => clearTimeout(timer),
  };
}

/** `draw`, at most once for each frame of the screen. */
function onceAFrame(draw) {
  let request = null;
  const run = () => {
    request = null;
    draw();
  };
  return {
    request: () => (request ??= requestAnimationFrame(run)),
    stop: () => cancelAnimationFrame(request),
  };
}

/**
 * Long work in slices that leave the page free. `begin(request)` returns a generator that yields
 * now and then; `end(result, isLast)` gets what it returns. A request that comes while work is
 * going on waits until it ends, and only the last of such requests is taken up.
 */
export function inSlices(begin, end) {
  let work = null;
  let waiting = null;
  let timer;
  function slice() {
    const until = performance.now() + 12;
    let step;
    do step = work.next();
    while (!step.done && performance.now() < until);
    if (step.done) {
      const next = waiting;
      work = waiting = null;
      end(step.value, next === null);
      if (next !== null) request(next);
    } else {
      timer = setTimeout(slice);
    }
  }
  function request(what) {
    if (work !== null) {
      waiting = what;
      return;
    }
    work = begin(what);
    slice();
  }
  return { request, stop: () => clearTimeout(timer) };
}

// Signs of one size, around (0, 0).
const SHAPES = {
  circle: "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z",
  square: "M-4-4h8v8h-8z",
  triangle: "M0-5.2L4.9 3.6h-9.8z",
  diamond: "M0-5.5L5.5 0L0 5.5L-5.5 0z",
};

function mark(x, y, shape, { size = 1, ...attributes }) {
  const transform = `translate(${x.toFixed(1)} ${y.toFixed(1)}) scale(${size})`;
  return svg("path", { class: "mark", d: SHAPES[shape], transform, ...attributes });
}

/** A logarithmic axis. With `zero`, the place of 0 is half a decade before its low end. */
export function logAxis(label, [low, high], zero = false) {
  const first = Math.ceil(Math.log10(low) - 1e-9);
  const last = Math.floor(Math.log10(high) + 1e-9);
  const end = low / (zero ? 3 : 1);
  const least = zero ? end : low * 1e-3; // values far below are drawn out of sight
  return {
    label,
    scale(from, to) {
      const slope = (to - from) / Math.log10(high / end);
      return (value) => from + slope * Math.log10(Math.max(value, least) / end);
    },
    /** [value, text] of each tick, at least `space` pixels apart on an axis of that length. */
    ticks(length, space) {
      const decades = Math.log10(high / end);
      const stride = Math.ceil((space * decades) / length);
      const exponents = Array.from({ length: last - first + 1 }, (_, k) => first + k);
      const ticks = exponents
        .filter((exponent) => exponent % stride === 0)
        .map((exponent) => [10 ** exponent, powerOfTen(exponent)]);
      return zero ? [[0, "0"], ...ticks] : ticks;
    },
  };
}

/** A linear axis with ticks at the given numbers. */
export function linearAxis(label, [low, high], ticks) {
  return {
    label,
    scale: (from, to) => (value) => from + ((to - from) * (value - low)) / (high - low),
    ticks: () => ticks.map((value) => [value, String(value)]),
  };
}

/**
 * A plot that follows the width of its place. `height` gives its height for a width; a `square`
 * plot is as wide inside as it is high.
 *
 * `draw(pen)` is called with a fresh pen after every `redraw()` and change of width. A pen has the
 * scales `x` and `y`, the inner size `width` and `height`, and the methods `curve`, `area`, `line`,
 * `mark` and `label`. Curves, areas and lines are cut at the frame, marks and labels are not.
 */
export function plot({ description, xAxis, yAxis, height: heightOf, square = false, draw }) {
  const picture = svg("svg", { role: "img", "aria-label": description });
  const place = html("div", { class: "plot" }, picture);

  function redraw() {
    const outerWidth = place.clientWidth;
    if (outerWidth === 0) return;
    const outerHeight = Math.round(heightOf(outerWidth));
    const margin = { top: 26, right: 12, bottom: 44, left: 40 };
    const height = outerHeight - margin.top - margin.bottom;
    const free = outerWidth - margin.left - margin.right;
    const width = square ? Math.min(free, height) : free;
    margin.left += (free - width) / 2;
    const x = xAxis.scale(0, width);
    const y = yAxis.scale(height, 0);
    const back = svg("g", {});
    const inside = svg("svg", { width, height, style: "overflow: hidden" });
    const front = svg("g", { class: "halo" });
    for (const [value, words] of xAxis.ticks(width, 30)) {
      const at = x(value);
      if (at > 0) back.append(svg("line", { class: "grid", x1: at, x2: at, y1: 0, y2: height }));
      back.append(text(at, height + 18, words, { "text-anchor": "middle" }));
    }
    for (const [value, words] of yAxis.ticks(height, 20)) {
      const at = y(value);
      back.append(svg("line", { class: "grid", x1: 0, x2: width, y1: at, y2: at }));
      back.append(text(-7, at + 4, words, { "text-anchor": "end" }));
    }
    back.append(svg("line", { class: "axis", x1: 0, x2: width, y1: height, y2: height }));
    back.append(text(width, height + 38, xAxis.label, { "text-anchor": "end" }));
    back.append(text(-36, -12, yAxis.label, {}));
    const path = (points) =>
      points.map(([u, v]) => `${x(u).toFixed(1)},${y(v).toFixed(1)}`).join("L");
    draw({
      x,
      y,
      width,
      height,
      curve(points, attributes) {
        if (points.length === 0) return;
        inside.append(svg("path", { class: "curve", d: `M${path(points)}`, ...attributes }));
      },
      /** The area between two lines, of points [x, low, high]. */
      area(points, attributes) {
        if (points.length === 0) return;
        const upper = path(points.map(([u, , high]) => [u, high]));
        const lower = path(points.map(([u, low]) => [u, low]).reverse());
        inside.append(svg("path", { d: `M${upper}L${lower}z`, ...attributes }));
      },
      line: (x1, y1, x2, y2, attributes) =>
        inside.append(svg("line", { x1, y1, x2, y2, ...attributes })),
      mark: (u, v, shape, attributes) => front.append(mark(u, v, shape, attributes)),
      label: (u, v, words, attributes) =>
        front.append(text(u, v, words, { class: "strong", ...attributes })),
    });
    const shift = `translate(${margin.left} ${margin.top})`;
    picture.setAttribute("width", outerWidth);
    picture.setAttribute("height", outerHeight);
    picture.replaceChildren(svg("g", { transform: shift }, back, inside, front));
  }

  const observer = new ResizeObserver(redraw);
  observer.observe(place);
  return { node: place, redraw, stop: () => observer.disconnect() };
}

function text(x, y, words, attributes) {
  return svg("text", { x, y, ...attributes }, words);
}
