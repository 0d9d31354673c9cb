"""Write the grades of a class: a table, and a page for each student.

Whatever comes from a submission is shown as text, or as a PNG that begins like one.
"""

import base64
import csv
from html import escape

PNG = b"\x89PNG\r\n\x1a\n"
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: auto; padding: 1rem; }}
table {{ border-collapse: collapse; width: 100%; }}
td, th {{ border: 1px solid gray; padding: .3rem .6rem; text-align: left; vertical-align: top; }}
pre {{ white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; font-size: .9rem; }}
img {{ max-width: 100%; background: white; }}
.pair {{ display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; }}
@media (max-width: 40rem) {{ .pair {{ grid-template-columns: 1fr; }} }}
</style>
<h1>{title}</h1>
{body}
</html>
"""


def write(submissions, results, assignment, slug, out):
    """Write `grades.csv` and all reports to the folder `out`."""
    table = []
    for each in submissions:
        result = results[each.student]
        table.append(row(each, result, assignment))
        page = html(each, result, assignment)
        file = out / "reports" / f"{slug(each)}.html"
        file.write_text(page, encoding="utf-8", errors="replace")
    with (out / "grades.csv").open("w", newline="", encoding="utf-8", errors="replace") as file:
        writer = csv.writer(file)
        writer.writerow(columns(assignment))
        writer.writerows([harmless(value) for value in line] for line in table)


def columns(assignment):
    """Return the head of the table of grades."""
    heads = [
        f"{question['name']} ({'written, ' if question['manual'] else ''}of {question['points']})"
        for question in assignment.questions
    ]
    most = sum(q["points"] for q in assignment.questions if not q["manual"])
    return ["student", "file", *heads, f"automatic (of {most})", "notes"]


def row(submission, result, assignment):
    """Return a student's line of the table; written answers are left for the instructor."""
    questions = result.get("questions", [])
    scores = [question["score"] for question in questions] or [None] * len(assignment.questions)
    total = "not graded" if "problem" in result else sum(score or 0 for score in scores)
    return [
        submission.student,
        submission.path,
        *scores,
        total,
        "; ".join(notes(submission, result)),
    ]


def notes(submission, result):
    """Return what the instructor should know about a submission."""
    wrong = [result["wrong"]] if result.get("wrong") else []
    return [*submission.notes, *wrong]


def harmless(value):
    """Return a value of the table as a text that no spreadsheet takes for a formula."""
    shown = "" if value is None else str(value)
    return f"'{shown}" if shown[:1] in "=+-@\t\r" and shown else shown


def html(submission, result, assignment):
    """Return the page of one student."""
    lines = row(submission, result, assignment)
    body = [f"<p>File: {escape(str(submission.path))}</p>"]
    body += [f"<p>Note: {escape(note)}</p>" for note in notes(submission, result)]
    if "problem" in result:
        body.append(f"<p>Not graded: {block(result['problem'])}</p>")
    else:
        body.append(f"<p><strong>Automatic points: {lines[-2]}</strong></p>")
        body += [tested(q) for q in result["questions"] if "tests" in q]
        body += [answered(q) for q in result["questions"] if "rubric" in q]
        body.append(ran(result["cells"]))
    return PAGE.format(
        title=f"{escape(assignment.name)}: {escape(submission.student)}", body="\n".join(body)
    )


def block(text):
    """Return a text as it is, with its lines."""
    return f"<pre>{escape(str(text))}</pre>"


def tested(question):
    """Return the table of a question's tests."""
    lines = "".join(
        f"<tr><td>{escape(test['name'])}</td><td>{test['score']} of {test['points']}</td>"
        f"<td>{block(test['message'] or 'passed')}</td></tr>"
        for test in question["tests"]
    )
    head = f"{question['name']}: {question['score']} of {question['points']}"
    titles = "<tr><th>Test</th><th>Points</th><th>Result</th></tr>"
    return f"<h2>{escape(head)}</h2><table>{titles}{lines}</table>"


def answered(question):
    """Return a written answer, beside its rubric."""
    answer = question["answer"] or "(no answer)"
    return (
        f"<h2>{question['name']}: written, of {question['points']}</h2>"
        f"<div class='pair'><div><h3>Answer</h3>{block(answer)}</div>"
        f"<div><h3>Rubric</h3>{block(question['rubric'])}</div></div>"
    )


def ran(cells):
    """Return what went wrong in the cells, and the figures that they drew."""
    parts = [
        f"<p>Code cell {i}:</p>{block(cell['error'])}"
        for i, cell in enumerate(cells, 1)
        if cell["error"]
    ]
    parts += [
        f"<p>Code cell {i}:</p>"
        f"<img alt='Figure of code cell {i}' src='data:image/png;base64,{png}'>"
        for i, cell in enumerate(cells, 1)
        for png in filter(is_png, cell["figures"])
    ]
    return "<h2>Errors and figures</h2>" + "".join(parts or ["<p>None.</p>"])


def is_png(text):
    """Tell whether a text is a PNG in base64, and nothing else."""
    try:
        return base64.b64decode(text, validate=True).startswith(PNG)
    except ValueError:
        return False
