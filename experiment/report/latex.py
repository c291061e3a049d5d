"""The verdicts as a LaTeX table for a paper; it needs the packages booktabs and tabularx."""

import re
from collections.abc import Sequence

SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "−": "$-$", "±": r"$\pm$",
    "×": r"$\times$", "÷": r"$\div$", "–": "--", "\u00a0": "~", "<": r"\textless{}", ">": r"\textgreater{}",
    "→": r"$\to$", "≤": r"$\leq$", "≥": r"$\geq$", "[": "{[}", "*": "{*}",  # a row must begin with neither
}  # fmt: skip


def document(rows: Sequence[Sequence[str]]) -> str:
    """A ``tabularx`` of ``rows``, the first of which is the header."""
    header, *body = ([escape(cell) for cell in row] for row in rows)
    lines = [
        r"% \usepackage{booktabs, tabularx}",
        rf"\begin{{tabularx}}{{\linewidth}}{{{'X' * (len(header) - 1)}r}}",
        r"\toprule",
        " & ".join(header) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in body),
        r"\bottomrule",
        r"\end{tabularx}",
    ]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Any text as LaTeX shows it as it is."""
    return re.sub(f"[{re.escape(''.join(SPECIAL))}]", lambda match: SPECIAL[match[0]], text)
