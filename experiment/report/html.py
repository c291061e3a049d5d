"""A report as one HTML page that needs no other file, server or foreign script."""

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

import markdown

from experiment.report.answers import VERDICTS

STYLE = """ :root { color-scheme: light dark; --ink: #1f2933; --muted: #5b6570; --grid: #e4e7eb; --paper:
#fff; --link: #0b57a4;
  --series-0: #0072b2; --series-1: #d55e00; --series-2: #009e73; --series-3: #b8608f; --series-4: #3a9bd0;
  --series-5: #b97a00; --good: #0b6b3a; --bad: #a4262c; --open: #6b5900; --neutral: #3c5a80 }
@media (prefers-color-scheme: dark) { :root { --ink: #dfe4ea; --muted: #9aa5b1; --grid: #333b45; --paper:
#15191e;
  --link: #7ab7ff; --series-0: #4fb0ea; --series-1: #ff8a3d; --series-2: #35c794; --series-3: #e39ac4;
  --series-4: #8fd0f5; --series-5: #f2b430; --good: #5fd08f; --bad: #ff8d8d; --open: #e5c84a; --neutral:
  #9cc0ee } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: auto; padding: .75rem;
  overflow-wrap: anywhere; color: var(--ink); background: var(--paper) }
h1, h2, h3 { line-height: 1.25 } a { color: var(--link) } .scroll { overflow-x: auto } .pictures { display:
flex; flex-wrap: wrap; gap: 1rem } svg { max-width: 100%; height: auto; color: var(--ink); touch-action: pan-y
} svg text { font-family: system-ui, sans-serif !important } table { border-collapse: collapse; font-size:
.875rem; overflow-wrap: normal } th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--grid);
text-align: left; vertical-align: top } td { min-width: 3.5rem; max-width: 28rem } .verdict { font-weight:
600; white-space: nowrap; border-left: .3rem solid; padding-left: .35rem } .good { color: var(--good) } .bad {
color: var(--bad) } .open { color: var(--open) } .neutral { color: var(--neutral) } #runs th { cursor:
pointer; white-space: nowrap; user-select: none } #runs th[aria-sort=ascending]::after { content: " ▲" } #runs
th[aria-sort=descending]::after { content: " ▼" } input { font: inherit; padding: .3rem .6rem; width:
min(100%, 24rem); box-sizing: border-box; color: inherit;
  background: var(--paper); border: 1px solid var(--muted); border-radius: .25rem }
#tip { position: fixed; pointer-events: none; background: var(--ink); color: var(--paper);
  padding: .15rem .5rem; border-radius: .25rem;
  font-size: .8125rem; max-width: 80vw; display: none; z-index: 9 }
@media (max-width: 40rem) { body { font-size: 15px } h1 { font-size: 1.5rem } h2 { font-size: 1.2rem } }
"""

SCRIPT = """
const tip = document.getElementById("tip");
for (const svg of document.querySelectorAll("svg[data-points]")) {
  const points = JSON.parse(svg.dataset.points);
  const show = event => {
    const box = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / box.width;
    const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
    let best = null, least = 24 * scale;
    for (const [px, py, text] of points) {
      const distance = Math.hypot(px - x, py - y);
      if (distance < least) { least = distance; best = text; }
    }
    tip.style.display = best ? "block" : "none";
    if (!best) return;
    tip.textContent = best;
    tip.style.left = Math.max(4, Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8)) + "px";
    tip.style.top = Math.max(4, event.clientY - tip.offsetHeight - 10) + "px";
  };
  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerdown", show);
  svg.addEventListener("pointerleave", () => { tip.style.display = "none"; });
}
const runs = document.getElementById("runs");
if (runs) {
  const body = runs.tBodies[0], count = document.getElementById("count");
  const filter = document.getElementById("filter");
  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\\s+/).filter(Boolean);
    let shown = 0;
    for (const row of body.rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every(word => text.includes(word));
      shown += !row.hidden;
    }
    count.textContent = shown + " of " + body.rows.length;
  });
  const sort = head => {
    const down = head.getAttribute("aria-sort") === "ascending", place = head.cellIndex;
    for (const other of runs.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = row => row.cells[place].dataset.value ?? row.cells[place].textContent;
    const rows = [...body.rows].sort((a, b) => {
      const [p, q] = [value(a), value(b)], [m, n] = [Number(p), Number(q)];
      const empty = (q !== "") - (p !== "");
      const order = p !== "" && q !== "" && !isNaN(m) && !isNaN(n) ? m - n : p.localeCompare(q);
      return empty || (down ? -order : order);
    });
    body.append(...rows);
  };
  for (const head of runs.tHead.rows[0].cells) {
    head.tabIndex = 0;
    head.addEventListener("click", () => sort(head));
    head.addEventListener("keydown", event => { if (event.key === "Enter") sort(head); });
  }
}
"""


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
    words = "|".join(sorted(VERDICTS, key=len, reverse=True))
    body = re.sub(
        rf"(<td>|<strong>)({words})(?=[:,. <(])",
        lambda m: f'{m[1]}<span class="verdict {VERDICTS[m[2]]}">{m[2]}</span>',
        body,
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n{body}\n"
        f'<div id="tip" role="status"></div>\n<script>{SCRIPT}</script>\n</html>\n'
    )


def runs_table(header: Sequence[str], rows: Sequence[Sequence[tuple[Any, str]]], links: Sequence[str]) -> str:
    """A table that sorts and filters, as one block of HTML: each cell is a value to sort by and its text.

    ``links`` are those of the first column.
    """
    head = "".join(f"<th>{_text(name)}</th>" for name in header)
    lines = []
    for row, link in zip(rows, links, strict=True):
        cells = []
        for place, (value, shown) in enumerate(row):
            inner = f'<a href="{_text(link)}">{_text(shown)}</a>' if place == 0 else _text(shown)
            sort = "" if value is None or place == 0 else f' data-value="{_text(str(value))}"'
            cells.append(f"<td{sort}>{inner}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<p><input id="filter" type="search" placeholder="filter: words that a run must have" '
        f'aria-label="filter runs"> <span id="count">{len(rows)} of {len(rows)}</span></p>\n'
        f'<div class="scroll"><table id="runs"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _text(text: str) -> str:
    return html.escape(text).replace("\n", " ")
