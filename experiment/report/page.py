"""The report as a folder: ``report.md``, the same as one HTML file, ``results.csv`` and ``figures/``."""

import base64
import csv
import html
import math
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import markdown
from matplotlib.figure import Figure

from experiment.errors import UserError
from experiment.figures import save
from experiment.report import differences, homework, units
from experiment.report.answers import Answer, answer
from experiment.report.figures import COLORS, Panel, curves, dots, multiples
from experiment.report.questions import questions
from experiment.report.runs import DERIVED, Collection, Record, shorter, telling
from experiment.report.statistics import sign_flips

FILES = {"report.md", "report.html", "results.csv", "figures"}
STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: auto; padding: 1rem }
body { overflow-wrap: anywhere }
h1, h2, h3 { line-height: 1.25 }
.scroll, p:has(img) { overflow-x: auto }
img { min-width: 36rem; max-width: 100% }
table { border-collapse: collapse; font-size: .875rem; overflow-wrap: normal }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #8886; text-align: left; vertical-align: top }
"""
Settings = Mapping[tuple[str, ...], Sequence[Record]]


def write_report(folders: Sequence[Path], out: Path | None) -> str:
    """Report on everything in ``folders``.

    Args:
        folders: see :class:`experiment.report.runs.Collection`.
        out: where the report goes, in place of an earlier one; default: ``report/`` in the first folder.

    Returns:
        What to tell at the command line: the verdicts, and where the report is.

    Raises:
        UserError: if there is nothing to report, or no place for it.
    """
    runs = Collection(folders)
    out = (out or folders[0] / "report").absolute()
    if out.exists() and not (out.is_dir() and {path.name for path in out.iterdir()} <= FILES):
        raise UserError(f"{out} is something else than a report: give another out=FOLDER")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # made beside its place and moved there in one go: a failure on the way leaves what was there
        with tempfile.TemporaryDirectory(prefix=".report-", dir=out.parent) as work:
            new = Path(work) / "new"
            (new / "figures").mkdir(parents=True)
            answers = _write(runs, new)
            if out.exists():
                out.rename(Path(work) / "old")
            new.rename(out)
    except OSError as refusal:
        raise UserError(f"no report can be written to {out}: {refusal}") from refusal
    lines = [f"{given.question.text}  {given.verdict}" for given in answers]
    return "\n".join([*lines, _counts(runs), f"report: {out / 'report.html'}"])


def _write(runs: Collection, folder: Path) -> list[Answer]:
    def picture(figure: Figure, name: str) -> str:
        save(figure, folder / "figures" / f"{name}.png")
        return f"![{name}](figures/{name}.png)"

    asked, notes = questions(runs)
    answers = answer(asked, runs)
    title = ", ".join([*(sweep.name for sweep in runs.sweeps), *["single runs"] * bool(runs.loose)])
    flags = differences.flags(runs.finished) + differences.not_told_apart(runs.finished, runs.keys)
    blocks = [f"# {escape(title)}", escape(_summary(runs, len(flags)))]
    blocks += ["## Verdicts", _verdicts(answers), escape(_reading(answers))] if asked else []
    parts = [(sweep.name, runs.of(sweep), sweep.swept) for sweep in runs.sweeps]
    parts += [("single runs", runs.loose, runs.keys)] if runs.loose else []
    swept = {key for sweep in runs.sweeps for key in sweep.swept}
    for number, (name, records, own) in enumerate(parts, 1):
        keys = [key for key in runs.keys if key in own or key not in swept]
        settings = _by_setting(records, keys)
        blocks += [f"## Results: {escape(name)}", _results(settings, keys), *_settings(settings, keys)]
        drawn = _labelled(settings, keys)
        panels = [Panel(*what, drawn) for what in (homework.ACCURACY, homework.LOSS)]
        if len(drawn) > len(COLORS):
            blocks += [picture(multiples(panel, name), f"{panel.metric}-{number}") for panel in panels]
        elif drawn:
            blocks.append(picture(curves(panels, name), f"curves-{number}"))
    for number, given in enumerate(answers, 1):
        blocks += [f"## {number}. {escape(given.question.text)}", f"**{escape(given.verdict)}**"]
        cells = {s: cell for c in given.question.contrasts for s, cell in reversed(c.cells.items())}
        if any(cells.values()):  # an empty picture says nothing
            blocks.append(picture(dots(cells, given.claim.metric, given.question.text), f"question-{number}"))
        blocks += _details(given)
        blocks += [f"Next: <code>{escape(given.next_step)}</code>"] if given.next_step else []
    for sweep in runs.sweeps:
        if numbers := [[name, f"{value:.3g}"] for name, value in sweep.benchmark.items()]:
            what = "training step ÷ torch eager's, or share of BatchNorm in it"
            blocks += ["## Benchmark", table([[what, "value"], *numbers])]
        if sweep.name == homework.SWEEP:
            tables = homework.tables(runs.of(sweep)).items()
            blocks += ["## The course report", *(f"**{name}**\n\n{table(rows)}" for name, rows in tables)]
            figures = enumerate(homework.figures(runs.of(sweep)), 1)
            blocks += [picture(figure, f"course-report-{number}") for number, figure in figures]
    blocks += ["## Provenance", *_provenance(runs, flags)]
    blocks += ["## What is missing", *_missing(runs, answers, notes)]
    text = "\n\n".join(blocks) + "\n"
    (folder / "report.md").write_text(text)
    (folder / "report.html").write_text(page(text, title, folder))
    _write_csv(runs, folder / "results.csv")
    return answers


def escape(text: object) -> str:
    """Any text as one line that Markdown and HTML show as it is."""
    line = re.sub(r"[^\S\u00a0]+", " ", str(text)).strip()  # the space before a unit stays unbreakable
    for special in "&<~$":
        line = line.replace(special, f"&#{ord(special)};")
    return re.sub(r"[\\`*|\[\]!]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", line)  # x_y is no emphasis


def table(rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; the first row is the header, all cells are escaped."""
    header, *lines = ([*map(escape, row)] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *lines))


def page(text: str, title: str, folder: Path) -> str:
    """Markdown as one HTML page that needs no other file; its pictures lie in ``folder``."""

    def embedded(match: re.Match[str]) -> str:
        return f'src="data:image/png;base64,{base64.b64encode((folder / match[1]).read_bytes()).decode()}"'

    body = re.sub(r'src="(figures/[\w-]+\.png)"', embedded, markdown.markdown(text, extensions=["tables"]))
    body = body.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n{body}\n</html>\n"
    )


def _by_setting(records: Iterable[Record], keys: Sequence[str]) -> Settings:
    """The finished runs of each combination of values, and none where all are missing."""
    settings: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        if record.config or all(key in record.values for key in keys):
            setting = tuple(record.values.get(key, "–") for key in keys)
            settings.setdefault(setting, []).extend([record] * (record.status == "finished"))
    return settings


def _settings(settings: Settings, keys: Sequence[str]) -> list[str]:
    """What changes from one setting to another beside ``keys``: a row a key; nothing where nothing does."""
    runs = [records[0] for records in settings.values() if records]
    every = dict.fromkeys(key for run in runs for key in run.settings)
    changed = [k for k in every if len({run.settings.get(k) for run in runs}) > 1 and k not in keys]
    labels = list(_labelled(settings, keys))
    if not changed or len(labels) > 6:
        return [escape(f"Beside {', '.join(keys)}, these change: {', '.join(changed)}.")] if changed else []
    rows = [
        ["what else changes", *labels],
        *([key, *(r.settings.get(key, "–") for r in runs)] for key in changed),
    ]
    return [table(rows)]


def _labelled(settings: Settings, keys: Sequence[str]) -> dict[str, Sequence[Record]]:
    """Settings that have runs, by a label of as few keys as tell them apart."""
    told = telling([record for records in settings.values() for record in records], keys)
    labels = {}
    for setting, records in settings.items():
        pairs = [(shorter(key, told), value) for key, value in zip(keys, setting, strict=True) if key in told]
        labels[" ".join(f"{key}={value}" for key, value in pairs) or "all runs"] = records
    return {label: records for label, records in labels.items() if records}


def _counts(runs: Collection) -> str:
    """``18 of 20 runs finished, 2 failed``."""
    counts = Counter(record.status for record in runs.records if record.status != "finished")
    total = len(runs.records) - counts["left out"] - counts["skipped"]
    rest = [f", {count} {status}" for status, count in counts.items() if count]
    return f"{len(runs.finished)} of {total} runs finished{''.join(rest)}"


def _summary(runs: Collection, flags: int) -> str:
    seeds, data, epochs = (
        ", ".join(sorted({r.values.get(key, "–") for r in runs.finished}, key=lambda v: (len(v), v)))
        for key in ("seed", "data.dataset", "trainer.max_epochs")
    )
    flagged = f" Flagged: runs differ in {flags} ways nobody asked for, see Provenance." if flags else ""
    varied = ", ".join(runs.keys) or "the seed alone"
    return f"{_counts(runs)}. Varied: {varied}. Seeds {seeds}; data {data}; epochs {epochs}.{flagged}"


def _verdicts(answers: Iterable[Answer]) -> str:
    rows = [["", "on", "verdict", "effect (95 % interval)", "seeds"]]
    for given in answers:
        if given.claim.is_benchmark:
            rows.append([given.question.text, "", given.verdict, "", "1"])
            continue
        lines = [
            [f"– {given.name(contrast)}", contrast.scope, f.verdict, given.effect(f), str(f.found.n)]
            for contrast, f in zip(given.question.contrasts, given.findings, strict=True)
        ]
        first = [given.question.text, lines[0][1], given.verdict, "", ""]
        rows += [first, *lines] if len(lines) > 1 else [[given.question.text, *first[1:3], *lines[0][3:]]]
    return table(rows)


def _reading(answers: Sequence[Answer]) -> str:
    """How the verdicts came about."""
    tests = sum(not math.isnan(finding.p) for given in answers for finding in given.findings)
    metrics = {given.claim.metric for given in answers}
    lines = [
        "Runs are compared within a data set and a seed; several pairs of one seed count as their",
        "mean, so that the number of seeds is that of independent values.",
        "Intervals are those of the paired t-test; a verdict needs p < 0.05 after correction over all",
        f"comparisons of this report ({tests}), for which the intervals are not widened.",
        "They cover what the seed decides (weights, order of batches, augmentation) on one split of the data",
        "and one test set, and neither another split nor other test images.",
        "Seeds needed are for 80 % power, should mean and spread stay, and one look when they are all there;",
        "to look after each, sweep with sweep.until=decided.",
        "In the figures dots are runs, lines join the runs of a seed, diamonds are means with their 95 %",
        "interval; bands reach from the lowest to the highest run.",
        *(f"{metric} {meaning}." for metric, meaning in DERIVED.items() if metric in metrics),
    ]
    return " ".join(lines)


def _results(settings: Settings, keys: Sequence[str]) -> str:
    metrics = ("val_acc", "train_seconds", "flops_per_image", "parameters")
    names = ("n", "test accuracy", "best", "worst", "validation", "training", "FLOPs/image", "parameters")
    rows: list[Sequence[object]] = [[*keys, *names]]
    for setting, records in settings.items():
        found = [value for record in records if (value := record.metric("test_acc")) is not None]
        extremes = [units.number("test_acc", f(found, default=None)) for f in (max, min)]
        others = [units.spread(metric, [record.metric(metric) for record in records]) for metric in metrics]
        rows.append([*setting, len(records), units.spread("test_acc", found), *extremes, *others])
    return table(rows)


def _details(given: Answer) -> list[str]:
    """Of each contrast the test, the pairs it was made of, those that it lacks, and what else differs."""
    blocks = []
    for contrast, finding in zip(given.question.contrasts, given.findings, strict=True):
        found, metric = finding.found, given.claim.metric
        p = "" if math.isnan(found.p) else f", p = {found.p:.2g}, corrected {finding.p:.2g}"
        p += f", by sign flips {sign_flips(list(contrast.seeds.values())):.2g}" if p else ""
        text = f"{given.name(contrast)} on {contrast.scope}: {given.effect(finding)}; {found.n} seeds{p}"
        text += f". Verdict: {finding.verdict}."
        if contrast.across:
            text += f" From one data set to the other {', '.join(contrast.across)} change as well."
        lone = [f"{' '.join(pair)} (no {', no '.join(lack)})" for pair, lack in contrast.unpaired.items()]
        text += f" {len(lone)} without partner: {'; '.join(lone)}." if lone else ""
        rows = [["pair", *contrast.terms, "effect"]]
        for pair, value in contrast.values.items():
            cells = [units.number(metric, cell[pair]) for cell in contrast.cells.values()]
            rows.append([" ".join(pair), *cells, units.effect(metric, given.claim.is_ratio, value)])
        blocks += [escape(text), *[table(rows)] * bool(found.n)]
        if contrast.caveats:
            blocks.append("\n".join(f"- Among these runs {escape(caveat)}" for caveat in contrast.caveats))
    return blocks


def _provenance(runs: Collection, flags: Sequence[str]) -> list[str]:
    facts = [[name, differences.several(v)] for name, v in differences.facts(runs.finished).items()]
    times = [str(r.provenance[key]) for r in runs.finished for key in ("start", "end") if key in r.provenance]
    trained = [["trained", f"{min(times)} to {max(times)}"]] if times else []
    sessions = [session for sweep in runs.sweeps for session in sweep.sessions]
    commands = [f"{s.get('start')} at {differences.code(s.get('git'))}: {s.get('command')}" for s in sessions]
    commands += dict.fromkeys(str(record.provenance.get("command")) for record in runs.loose)
    return [
        "\n".join(f"- Flagged: {escape(flag)}" for flag in flags) or "Nothing flagged.",
        table([["what", "value"], *facts, *trained]),
        "\n".join(f"- <code>{escape(command)}</code>" for command in commands),
    ]


def _missing(runs: Collection, answers: Iterable[Answer], notes: Iterable[str]) -> list[str]:
    rows = [[runs.names[r.folder], r.status, r.reason] for r in runs.records if r.status != "finished"]
    for folder, kept in runs.repeats.items():
        rows.append(
            [runs.names[folder], "repeated", f"the same settings, data and seed as {runs.names[kept.folder]}"]
        )
    for metric in dict.fromkeys(["test_acc", *(a.claim.metric for a in answers if not a.claim.is_benchmark)]):
        lacking = [record for record in runs.finished if record.metric(metric) is None]
        rows += [[runs.names[record.folder], "finished", f"no finite {metric}"] for record in lacking]
    counts = ", ".join(f"{count} {status}" for status, count in Counter(row[1] for row in rows).items())
    listed = [f"{counts}:", table([["run", "status", "why"], *rows])] if rows else ["Nothing."]
    return [*listed, "\n".join(f"- {escape(note)}" for note in notes)]


def _write_csv(runs: Collection, path: Path) -> None:
    """A row for everything that was found."""
    results = [item for record in runs.records for item in record.results.items()]
    numbers = dict.fromkeys(key for key, value in results if not isinstance(value, dict | str))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["folder", "status", "reason", *runs.keys, "seed", *numbers])
        for record in runs.records:
            own = [
                runs.names[record.folder],
                record.status,
                record.reason,
                *map(record.values.get, [*runs.keys, "seed"]),
            ]
            writer.writerow([*own, *map(record.results.get, numbers)])
