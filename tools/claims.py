"""The page of all published claims: the table of claims with the numbers that the chapters found.

    python -m tools.claims

writes `chapters/claims.md` from `tools/claims.yml` and from the cells whose metadata hold claims,
and what the front page takes from the chapters.
"""

import re
import sys

import nbformat
import yaml

from tools import book, filled, front_page

TABLE = book.ROOT / "tools" / "claims.yml"
PAGE = book.ROOT / "chapters" / "claims.md"
NOT_MEASURED = "not measured here"
VERDICTS = ("holds", "partly", "fails", "open", NOT_MEASURED)
FIGURE = re.compile(r"\bfigure (\d+)", re.I)

OPENING = """\
% Written by `python -m tools.claims` from tools/claims.yml and the chapters. Do not edit.

# All published claims

This page lists the numbered figures and the stated findings of three documents:
the paper on the noisy quadratic model {cite:p}`zhang2019`,
the slides on two papers on noise and batch size {cite:p}`smith2018bayesian,smith2018increase`,
and the paper on extrapolation for large batches {cite:p}`lin2020`.
The claims are in our words.
Each number is what the named chapter computes, copied from there by a program.
Square brackets hold 95 % intervals; ± is two standard errors.
Numbers of the model are exact and have none.

| Verdict | Meaning |
| --- | --- |
| holds | our numbers agree |
| partly | they agree in some cases, or in direction but not in size |
| fails | our numbers say otherwise |
| open | our intervals are too wide to tell |
| not measured here | we have no measurement of our own |

A verdict is about what is measured here.
Our networks are small: where one fails, the claim may still hold on a larger one.
"""
CLOSING = """\
## References

```{bibliography}
:filter: docname in docnames
```
"""


def load(path=TABLE):
    """Return the documents, each with its claims."""
    return yaml.safe_load(path.read_text("utf-8"))


def numbers(paths):
    """Yield the id of each claim in the chapters' cells, the chapter's name and what it found."""
    for path in paths:
        for cell in nbformat.read(path, as_version=4).cells:
            for key in cell.metadata.get("claims", {}):
                yield key, book.name(path), cell.metadata.get(filled.FOUND, {}).get(key)


def problems(documents, found):
    """Yield one line for each number, claim or figure that is missing, twice or unknown."""
    measured = {}
    for key, chapter, number in found:
        if not number:
            yield f"{chapter}: claim {key} has no number: run make refresh"
        if key in measured:
            yield f"{chapter}: claim {key} stands in {measured[key]} too"
        measured[key] = chapter
    listed = [claim for document in documents for claim in document["claims"]]
    ids = [claim["id"] for claim in listed]
    yield from (f"claim {key} is listed {ids.count(key)} times" for key in repeated(ids))
    yield from (f"{measured[key]}: claim {key} is not listed" for key in measured.keys() - set(ids))
    for claim in listed:
        yield from claim_problems(claim, measured)
    for document in documents:
        named = FIGURE.findall(" ".join(claim["source"] for claim in document["claims"]))
        for number in range(1, document.get("figures", 0) + 1):
            if str(number) not in named:
                yield f"{document['title']}: figure {number} is missing"


def repeated(names):
    """Return the names that occur more than once."""
    return sorted({name for name in names if names.count(name) > 1})


def claim_problems(claim, measured):
    """Yield what is wrong with the verdict of one claim."""
    key, verdict = claim["id"], claim["verdict"]
    if verdict not in VERDICTS:
        yield f"claim {key}: verdict is {verdict!r}; allowed: {', '.join(VERDICTS)}"
    elif (verdict == NOT_MEASURED) == (key in measured):
        article = "a" if key in measured else "no"
        yield f"claim {key}: {verdict!r}, but {article} chapter measures it"


def row(claim, measured):
    """Return the row of one claim."""
    chapter, number = measured.get(claim["id"], ("", ""))
    link = f"{{doc}}`{chapter}`" if chapter else "–"
    cells = [
        f"{claim['claim']} *({claim['source']})*",
        number or "–",
        claim["scale"],
        f"**{claim['verdict']}**",
        link,
    ]
    return "* - " + "\n  - ".join(cells)


def page(documents, found):
    """Return the text of the page."""
    measured = {key: (chapter, number) for key, chapter, number in found}
    parts = [OPENING]
    for document in documents:
        rows = "\n".join(row(claim, measured) for claim in document["claims"])
        parts.append(f"## {document['title']}\n\n{document['about']}\n")
        parts.append(
            "````{list-table}\n:header-rows: 1\n:class: claims\n:widths: 34 30 14 10 12\n\n"
            "* - Claim\n  - Our number\n  - Measured on\n  - Verdict\n  - Chapter\n"
            f"{rows}\n````\n"
        )
    return "\n".join([*parts, CLOSING])


def files(documents, found):
    """Return the files that are written, by path, as bytes."""
    return {
        PAGE: page(documents, found).encode(),
        front_page.GLANCE: front_page.glance(found).encode(),
        front_page.PICTURE: front_page.picture(),
    }


def main():
    """Write the files and print problems; return the exit status."""
    documents, found = load(), list(numbers(book.chapters()))
    lines = list(problems(documents, found))
    for path, content in files(documents, found).items():
        path.write_bytes(content)
    print("\n".join(lines) or f"{len(found)} numbers")
    return f"{len(lines)} problems" if lines else 0


if __name__ == "__main__":
    sys.exit(main())
