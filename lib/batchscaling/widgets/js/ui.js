// The pieces every explorer is built of: the frame and its style, labelled sliders, buttons, a
// status line for eyes and screen readers, and a plot with two logarithmic axes.

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
.batchscaling-explorer .plot { width: 100%; }
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
  margin: 0.5rem 0 0.75rem; padding-left: 0.75rem; min-height: 2.9em;
  border-left: 3px solid var(--accent);
}
.batchscaling-explorer .controls {
  display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 0.5rem 1.25rem;
}
@container (max-width: 710px) {
  .batchscaling-explorer .controls { grid-template-columns: repeat(2, minmax(0, 1fr)); }
}
@container (max-width: 600px) {
  .batchscaling-explorer .status { min-height: 4.35em; }
}
@container (max-width: 430px) {
  .batchscaling-explorer .controls { grid-template-columns: minmax(0, 1fr); }
  .batchscaling-explorer .status { min-height: 5.8em; }
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

/** The bordered, styled frame of an explorer. */
export function frame(name, ...children) {
  const style = html("style", {}, STYLE);
  return html(
    "section",
    { class: "batchscaling-explorer", "aria-label": name },
    style,
    ...children,
  );
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

/**
 * A labelled slider over a list of numbers; its first value joins the list if it is not in it.
 * Returns its node and `set(value)`.
 */
export function slider({ label, choices, value, format, onInput }) {
  let values = [];
  const shown = html("span", { class: "value", "aria-hidden": "true" });
  const input = html("input", { type: "range", min: 0, step: 1, "aria-label": label });
  const show = () => {
    const text = format(values[input.value]);
    shown.textContent = text;
    input.setAttribute("aria-valuetext", text);
    input.style.setProperty("--filled", `${(100 * input.value) / input.max}%`);
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

/** A legend of line samples; each entry is [the sample's attributes, its text]. */
export function legend(entries) {
  const items = entries.map(([attributes, text]) => {
    const sample = svg("line", { x1: 1, x2: 29, y1: 6, y2: 6, ...attributes });
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
export function statusLine() {
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
export function onceAFrame(draw) {
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
 * A plot with two logarithmic axes that follows the width of its place. With `xZero`, the place
 * of x = 0 is half a decade left of the axis.
 *
 * `draw(pen)` is called with a fresh pen after every `redraw()` and change of width. A pen has the
 * scales `x` and `y`, the inner size `width` and `height`, and the methods `curve`, `line`, `dot`
 * and `label`. Curves are cut at the frame, labels are not.
 */
export function logPlot({ description, xLabel, yLabel, xRange, xZero, yRange, draw }) {
  const picture = svg("svg", { role: "img", "aria-label": description });
  const place = html("div", { class: "plot" }, picture);
  const margin = { top: 26, right: 12, bottom: 44, left: 40 };
  const decades = ([low, high]) => {
    const first = Math.ceil(Math.log10(low) - 1e-9);
    const count = Math.floor(Math.log10(high) + 1e-9) - first + 1;
    return Array.from({ length: count }, (_, k) => first + k);
  };
  // Values far below the range are drawn three decades below it, out of sight.
  const scale = ([low, high], from, to) => {
    const slope = (to - from) / Math.log10(high / low);
    return (value) => from + slope * Math.log10(Math.max(value, low * 1e-3) / low);
  };

  function redraw() {
    const outerWidth = place.clientWidth;
    if (outerWidth === 0) return;
    const outerHeight = Math.round(Math.min(Math.max(0.52 * outerWidth, 290), 380));
    const width = outerWidth - margin.left - margin.right;
    const height = outerHeight - margin.top - margin.bottom;
    const leftEnd = xRange[0] / (xZero ? 3 : 1);
    const along = scale([leftEnd, xRange[1]], 0, width);
    const x = (value) => along(Math.max(value, leftEnd));
    const y = scale(yRange, height, 0);
    const back = svg("g", {});
    const inside = svg("svg", { width, height, style: "overflow: hidden" });
    const front = svg("g", { class: "halo" });
    for (const exponent of decades(xRange)) {
      const at = x(10 ** exponent);
      back.append(svg("line", { class: "grid", x1: at, x2: at, y1: 0, y2: height }));
      back.append(text(at, height + 18, powerOfTen(exponent), { "text-anchor": "middle" }));
    }
    for (const exponent of decades(yRange)) {
      const at = y(10 ** exponent);
      back.append(svg("line", { class: "grid", x1: 0, x2: width, y1: at, y2: at }));
      back.append(text(-7, at + 4, powerOfTen(exponent), { "text-anchor": "end" }));
    }
    if (xZero) back.append(text(0, height + 18, "0", { "text-anchor": "middle" }));
    back.append(svg("line", { class: "axis", x1: 0, x2: width, y1: height, y2: height }));
    back.append(text(width, height + 38, xLabel, { "text-anchor": "end" }));
    back.append(text(-margin.left + 4, -12, yLabel, {}));
    draw({
      x,
      y,
      width,
      height,
      curve(points, attributes) {
        const path = points.map(([u, v]) => `${x(u).toFixed(1)},${y(v).toFixed(1)}`).join("L");
        if (path) inside.append(svg("path", { class: "curve", d: `M${path}`, ...attributes }));
      },
      line: (x1, y1, x2, y2, attributes) =>
        inside.append(svg("line", { x1, y1, x2, y2, ...attributes })),
      dot: (cx, cy, attributes) => front.append(svg("circle", { cx, cy, r: 4.5, ...attributes })),
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
