"""Advice as one page of HTML that needs nothing else. Needs no torch."""

import json
from html import escape
from importlib.resources import files
from string import Template

import numpy as np

_EXPLORER = """
<h2>Time against cost</h2>
<p>Choose a batch size and how many devices share it. Exchange between devices is taken to cost
nothing, so real ones do worse.</p>
<div id="explorer">
<label>Batch size: <output data-of="size"></output>
<input type="range" name="size" min="0" max="10" step="1"></label>
<label>Devices: <output data-of="devices"></output>
<input type="range" name="devices" min="0" max="10" step="1" value="0"></label>
<label>Critical batch size, within the interval: <output data-of="scale"></output>
<input type="range" name="scale" min="0" max="1" step="any"></label>
<p><output data-of="result" aria-live="polite"></output></p>
<svg viewBox="0 0 360 220" role="img" aria-label="Time against cost of all batch sizes, both
logarithmic; a dot marks the chosen one">
<path fill="none" stroke="var(--blue)" stroke-width="2.5"/><circle r="5" fill="var(--orange)"/>
<text x="190" y="214" text-anchor="middle">cost</text>
<text x="14" y="100" text-anchor="middle" transform="rotate(-90 14 100)">time</text></svg>
</div>
"""


def page(advice):
    """Return the page of an advice, given as the dict of `Advice.to_dict`."""
    rows = advice["table"]
    parts = [_head(advice), _layers(advice)]
    if advice["throughput"] is not None:
        speed = advice["throughput"]
        per_second = np.divide(speed["batch_sizes"], speed["seconds"])
        words = "Examples a second against batch size"
        parts.append(_figure(words, speed["batch_sizes"], per_second, None, advice))
    if rows:
        kind = "time" if advice["throughput"] is not None else "steps"
        values = np.array([row[kind] for row in rows])
        words = f"{kind.capitalize()} to the same loss against batch size, with its interval"
        sizes = [row["batch_size"] for row in rows]
        parts.append(_figure(words, sizes, values[:, 0], values[:, 1:], advice))
        parts.append(_table(rows, advice["critical"]))
        if advice["price"]:  # without, there is no cost to set against time
            parts.append(_EXPLORER)
    parts += [_transfer(advice), _worth(advice)]
    template = Template((files("batchscaling.practice") / "report.html").read_text("utf-8"))
    data = json.dumps(advice, allow_nan=False).replace("<", "\\u003c")
    return template.substitute(body="\n".join(parts), data=data)


def _head(advice):
    words = "Cannot tell"
    if advice["batch_size"] is not None:
        words = f"{advice['batch_size']}, between {advice['low']} and {advice['high']}"
    told = "".join(f"<p>{escape(words)}</p>" for words in advice["disagreements"])
    return (
        f'<div class="advice"><p><strong>{words}</strong></p><p>{escape(advice["reason"])}</p>'
        f"{told}</div><p>The run has batch size {advice['used']}.</p>"
    )


def _layers(advice):
    noise, branches, speed = (advice[name] for name in ("noise", "branches", "throughput"))
    lines = [f"{layer}: {words}" for layer, words in advice["failed"].items()]
    if speed is not None:
        lines.append(
            f"Throughput: measured up to batch size {speed['batch_sizes'][-1]}; {speed['ended']}."
        )
    if noise is not None:
        lines.append("Noise scale: " + _reading(noise, ("batch_size", "low", "high")))
    if branches is not None:
        low, high = branches["low"], branches["high"]
        ends = [] if low is None else [f"nothing lost up to {low}"]
        ends += [] if high is None else [f"something from {high} on"]
        lines.append("Branches: " + (branches["reason"] or ", ".join(ends)))
    if advice["race"] is not None:
        best = advice["race"]["hyper"].items()
        found = "; ".join(f"{_named(name)} {_numbers(hyper)}" for name, hyper in best)
        lines.append(f"Race: {advice['race']['steps'][-1]} steps, with {found}.")
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<h2>What was measured</h2><ul>{items}</ul>"


def _named(contender):
    return {"sgd": "SGD", "adam": "Adam", "kfac": "K-FAC"}.get(
        contender, contender.replace("_", " ")
    )


def _numbers(hyper):
    return ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in hyper.items())


def _reading(noise, names):
    value, low, high = (noise[name] for name in names)
    if value is None:
        return f"cannot tell: {noise['reason']}"
    return f"{value:.3g} examples, between {low:.3g} and {high:.3g}"


def _table(rows, critical):
    middle, low, high = critical
    names = [name for name in rows[0] if rows[0][name] is not None]
    head = "".join(f'<th scope="col">{name.replace("_", " ")}</th>' for name in names)
    lines = "".join(
        "<tr>" + "".join(f"<td>{_cell(row[name])}</td>" for name in names) + "</tr>" for row in rows
    )
    return (
        '<h2>What each batch size takes</h2><p class="muted">To the same loss, with a critical '
        f"batch size of {middle:.3g}, between {low:.3g} and {high:.3g}.</p>"
        f'<div class="wide" tabindex="0"><table><tr>{head}</tr>{lines}</table></div>'
    )


def _cell(value):
    if not isinstance(value, list):
        return str(value)
    middle, low, high = value
    return f"{middle:.3g}<br><small>{low:.3g} to {high:.3g}</small>"


def _transfer(advice):
    lines = "".join(
        f"<li><strong>{escape(m['name'])}</strong>: {m['value']:.4g} becomes {m['moved']:.4g} "
        f"({escape(m['rule'])}; holds {escape(m['valid'])})</li>"
        for m in advice.get("transfer", ())
    )
    return f"<h2>At the advised batch size</h2><ul>{lines}</ul>" if lines else ""


def _worth(advice):
    lines = "".join(f"<li>{name}: {escape(words)}</li>" for name, words in advice["worth"].items())
    return f"<h2>Another optimizer?</h2><ul>{lines}</ul>"


def _figure(words, sizes, values, ends, advice):
    """Return a chart with logarithmic axes: a line, a band if `ends` are given, and the advice."""
    all_values = np.concatenate([values, np.ravel(ends) if ends is not None else []])
    x = _axis(sizes, 44, 344)
    y = _axis(all_values, 180, 14)
    line = " ".join(f"{x(b):.1f},{y(v):.1f}" for b, v in zip(sizes, values, strict=True))
    shapes = [f'<polyline points="{line}" fill="none" stroke="var(--blue)" stroke-width="2.5"/>']
    if ends is not None:
        there = [f"{x(b):.1f},{y(v):.1f}" for b, v in zip(sizes, ends[:, 0], strict=True)]
        back = [f"{x(b):.1f},{y(v):.1f}" for b, v in zip(sizes, ends[:, 1], strict=True)]
        band = " ".join([*there, *back[::-1]])
        shapes.insert(0, f'<polygon points="{band}" fill="var(--blue)" opacity="0.25"/>')
    best = advice["batch_size"]
    if best is not None and sizes[0] <= best <= sizes[-1]:
        at = x(best)
        shapes.append(f'<path d="M{at:.1f} 14V180" stroke="var(--orange)" stroke-dasharray="5 4"/>')
    for size in (sizes[0], sizes[-1]):
        shapes.append(f'<text x="{x(size):.1f}" y="198" text-anchor="middle">{size}</text>')
    for value in (all_values.min(), all_values.max()):
        shapes.append(f'<text x="40" y="{y(value) + 4:.1f}" text-anchor="end">{value:.2g}</text>')
    return (
        f'<figure style="margin:1rem 0"><svg viewBox="0 0 360 204" role="img" '
        f'aria-label="{escape(words)}">{"".join(shapes)}</svg>'
        f"<figcaption>{escape(words)}; both axes are logarithmic. The dashed line is the advice."
        "</figcaption></figure>"
    )


def _axis(values, start, end):
    low, high = np.log(np.min(values)), np.log(np.max(values))
    span = high - low or 1.0
    return lambda value: start + (np.log(value) - low) / span * (end - start)
