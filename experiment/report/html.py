"""A report as one HTML page that needs no other file, server or foreign script."""

import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import markdown

from experiment.report.answers import VERDICTS


def page(text: str, title: str, pictures: Mapping[str, str]) -> str:
    """Markdown as an HTML page.

    Args:
        text: of the report.
        title: of the page.
        pictures: path of a picture in ``text`` → the SVG element that stands for it here.
    """
    body = markdown.markdown(text, extensions=["tables"])
    body = re.sub(r'<img[^>]* src="(figures/[\w-]+\.png)"[^>]*/?>', lambda m: pictures[m[1]], body)
    body = re.sub(r"<p>((?:<svg.*?</svg>\s*)+)</p>", r'<div class="pictures">\1</div>', body, flags=re.DOTALL)
    body = body.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")
    body = re.sub(r"<table>(?=\s*<thead>\s*<tr>\s*<th>question)", '<table class="verdicts">', body)
    words = "|".join(sorted(VERDICTS, key=len, reverse=True))
    body = re.sub(
        rf"(<td>|<strong>)({words})(?=[:,. <(])",
        lambda m: f'{m[1]}<span class="verdict {VERDICTS[m[2]]}">{m[2]}</span>',
        body,
    )
    template = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    return template.substitute(title=escape(title), body=body)


def runs_table(header: Sequence[str], rows: Sequence[Sequence[tuple[Any, str]]], links: Sequence[str]) -> str:
    """A table that sorts and filters, as one block of HTML: each cell is a value to sort by and its text.

    ``links`` are those of the first column.
    """
    lines = []
    for row, link in zip(rows, links, strict=True):
        cells = [f'<td><a href="{_line(link)}">{_line(row[0][1])}</a></td>']
        cells += [f'<td data-value="{_line(value)}">{_line(shown)}</td>' for value, shown in row[1:]]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<p><input id="filter" type="search" placeholder="filter: words that a run must have" '
        f'aria-label="filter runs"> <span id="count">{len(rows)} of {len(rows)}</span></p>\n'
        f'<div class="scroll"><table id="runs"><thead><tr>{"".join(f"<th>{_line(h)}</th>" for h in header)}'
        f"</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _line(text: Any) -> str:
    return escape(str(text)).replace("\n", " ")
