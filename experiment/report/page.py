"""The report as a folder: ``report.{md,html,tex}``, ``results.csv`` and ``figures/``."""

import csv
import math
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from matplotlib.figure import Figure

from experiment.errors import UserError
from experiment.metrics import row, units
from experiment.plots.comparison import Comparison, Effect, Panel, curves, multiples, verdict
from experiment.plots.style import SERIES, png, svg, write_png
from experiment.report import differences, latex, predictions, published
from experiment.report.answers import Answer, answer, equivalence
from experiment.report.html import page, runs_table
from experiment.report.questions import questions
from experiment.report.runs import DERIVED, Collection, Record, shorter, telling
from experiment.report.statistics import sign_flips
from experiment.results import headline, metric_keys

FILES = {"report.md", "report.html", "report.tex", "results.csv", "figures"}
RUNS_TABLE = "<!-- the table of all runs stands in report.html -->"
Settings = Mapping[tuple[str, ...], Sequence[Record]]


def write_report(folders: Sequence[Path], out: Path | None, delta: float | None = None) -> str:
    """Report on everything in ``folders``.

    Args:
        folders: see :class:`experiment.report.runs.Collection`.
        out: where the report goes, in place of an earlier one; default: ``report/`` in the first folder.
        delta: a difference within ±delta counts as none, where a claim does not say it.

    Returns:
        What to tell at the command line: the verdicts, and where the report is.

    Raises:
        UserError: if there is nothing to report, or no place for it.
    """
    runs = Collection(folders)
    out = (out or folders[0] / "report").absolute()
    if out.exists() and not (out.is_dir() and {path.name for path in out.iterdir()} <= FILES):
        raise UserError(f"{out} is something else than a report: give another out=FOLDER")
    report = Report(runs, out, delta)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # made beside its place and moved there in one go: a failure on the way leaves what was there
        with tempfile.TemporaryDirectory(prefix=".report-", dir=out.parent) as work:
            new = Path(work) / "new"
            (new / "figures").mkdir(parents=True)
            report.write(new)
            if out.exists():
                out.rename(Path(work) / "old")
            new.rename(out)
    except OSError as refusal:
        raise UserError(f"no report can be written to {out}: {refusal}") from refusal
    return report.told


class Report:
    """What is reported of runs.

    Args:
        runs: all of them.
        out: the folder in which the report will lie.
        delta: see :func:`write_report`.
    """

    def __init__(self, runs: Collection, out: Path, delta: float | None) -> None:
        self.runs, self.out = runs, out
        self.metrics = list(dict.fromkeys(key for run in runs.finished for key in metric_keys(run.results)))
        self.first = next(iter(self.metrics), "loss")  # that speaks for the runs
        asked, self.notes = questions(runs, f"test_{self.first}")
        self.answers = answer(asked, runs, delta)
        self.delta = delta
        self.title = ", ".join([*(sweep.name for sweep in runs.sweeps), *["single runs"] * bool(runs.loose)])
        self.pictures: dict[str, str] = {}
        is_pair = len(runs.finished) == 2 and not runs.sweeps
        self.pair = (runs.finished[0], runs.finished[1]) if is_pair else None

    @property
    def told(self) -> str:
        """What the command line says: the verdicts, and where the report is."""
        lines = [f"{given.question.text}  {given.verdict}" for given in self.answers]
        if self.pair:
            lines = [*_told_apart(*self.pair), *_came_out(*self.pair), *lines]
        return "\n".join([*lines, _counts(self.runs), f"report: {self.out / 'report.html'}"])

    def write(self, folder: Path) -> None:
        """Write all of the report into an empty folder with an empty ``figures/``."""
        blocks = self._blocks(folder)
        text = "\n\n".join(blocks) + "\n"
        (folder / "report.md").write_text(text)
        with_runs = text.replace(RUNS_TABLE, self._runs_table())
        (folder / "report.html").write_text(page(with_runs, self.title, self.pictures))
        (folder / "report.tex").write_text(latex.document(_verdict_rows(self.answers)))
        _write_csv(self.runs, folder / "results.csv")

    def _picture(self, folder: Path, figure: Figure, name: str) -> str:
        path = f"figures/{name}.png"
        write_png(png(figure, dpi=100), folder / path)
        figure.set_layout_engine("none")  # keeps what was laid out, which takes half of the time
        self.pictures[path] = svg(figure, name)
        return f"![{name}]({path})"

    def _blocks(self, folder: Path) -> list[str]:
        runs, answers = self.runs, self.answers
        flags = differences.flags(runs.finished) + differences.not_told_apart(runs.finished, runs.keys)
        blocks = [f"# {escape(self.title)}", escape(_summary(runs, len(flags)))]
        blocks += _difference(*self.pair) if self.pair else []
        if answers:
            blocks += ["## Verdicts", table(_verdict_rows(answers)), escape(_reading(answers))]
        parts = [(sweep.name, runs.of(sweep), sweep.swept) for sweep in runs.sweeps]
        parts += [("single runs", runs.loose, runs.keys)] if runs.loose else []
        swept = {key for sweep in runs.sweeps for key in sweep.swept}
        for number, (name, records, own) in enumerate(parts, 1):
            keys = [key for key in runs.keys if key in own or key not in swept]
            settings = _by_setting(records, keys)
            blocks += [f"## Results: {escape(name)}", _results(settings, keys), *_settings(settings, keys)]
            if labelled := _labelled(settings, keys):
                blocks.append(self._curves(folder, labelled, name, number))
                blocks += _calibration(labelled)
        for number, given in enumerate(answers, 1):
            blocks += [f"## {number}. {escape(given.question.text)}", f"**{escape(given.verdict)}**"]
            if comparisons := _comparisons(given, self.delta):
                drawn = verdict(given.question.text, given.verdict, comparisons)
                blocks.append(self._picture(folder, drawn, f"question-{number}"))
            blocks += _details(given)
            blocks += [f"Next: <code>{escape(given.next_step)}</code>"] if given.next_step else []
        for sweep in runs.sweeps:
            if numbers := [[name, f"{value:.3g}"] for name, value in sweep.benchmark.items()]:
                what = "training step ÷ torch eager's, or share of BatchNorm in it"
                blocks += ["## Benchmark", table([[what, "value"], *numbers])]
            blocks += self._published(folder, runs.of(sweep))
        blocks += ["## All runs", RUNS_TABLE, "## Provenance", *_provenance(runs, flags)]
        blocks += ["## What is missing", *_missing(runs, answers, self.notes)]
        return [block for block in blocks if block]

    def _curves(self, folder: Path, settings: Mapping[str, Sequence[Record]], name: str, number: int) -> str:
        drawn = {label: [run.rows for run in records] for label, records in settings.items()}
        if not any(rows for runs in drawn.values() for rows in runs):
            return ""
        kinds = dict.fromkeys(_loss(run) for records in settings.values() for run in records)
        note = f"; of different kinds: {', '.join(kinds)}" if len(kinds) > 1 else ""
        made = []
        for panel in (Panel(f"val_{self.first}", drawn), Panel("train_loss", drawn, note=note)):
            figure = multiples(panel, name) if len(drawn) > len(SERIES) else curves([panel], name)
            made.append(self._picture(folder, figure, f"{panel.metric}-{number}"))
        return "\n".join(made)

    def _published(self, folder: Path, records: Sequence[Record]) -> list[str]:
        content = published.published(records)
        if not content:
            return []
        blocks = [f"## {escape(content['title'])}"]
        for name, rows in published.tables(content, records).items():
            blocks.append(f"**{escape(name)}**\n\n{table(rows)}")
        for number, (title, panels) in enumerate(published.figures(content, records).items(), 1):
            blocks.append(self._picture(folder, curves(panels, title), f"published-{number}"))
        return blocks

    def _runs_table(self) -> str:
        """Everything that was found, as HTML."""
        runs = self.runs
        numbers = [*(f"test_{key}" for key in (*self.metrics, "loss")), f"val_{self.first}"]
        numbers += ["epochs", "train_seconds"]
        rows, links = [], []
        for record in runs.records:
            name = runs.names[record.folder]
            texts = [record.values.get(key, "") for key in (*runs.keys, "seed")]
            cells = [(None, name), (None, record.status), *((text, text) for text in texts)]
            for metric in numbers:
                value = record.metric(metric)
                cells.append(("" if value is None else f"{value:.9g}", units.number(metric, value)))
            rows.append(cells)
            links.append(quote(os.path.relpath(record.folder, self.out)) + "/")
        return runs_table(["run", "status", *runs.keys, "seed", *map(units.name, numbers)], rows, links)


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


def _loss(run: Record) -> str:
    """The kind of a run's training loss: curves of two kinds are not comparable."""
    smoothing = run.settings.get("loss.label_smoothing", "0")
    name = run.choices.get("loss") or run.settings.get("loss._target_", "loss").rpartition(".")[2]
    return f"{name} {smoothing}" if smoothing != "0" else name.replace("label_smoothing", "cross_entropy")


def _by_setting(records: Iterable[Record], keys: Sequence[str]) -> Settings:
    """The finished runs of each combination of values, and none where all are missing."""
    settings: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        if record.config or all(key in record.values for key in keys):
            setting = tuple(record.values.get(key, "–") for key in keys)
            settings.setdefault(setting, []).extend([record] * (record.status == "finished"))
    return settings


def _labelled(settings: Settings, keys: Sequence[str]) -> dict[str, Sequence[Record]]:
    """Settings that have runs, by a label of as few keys as tell them apart."""
    told = telling([record for records in settings.values() for record in records], keys)
    labels = {}
    for setting, records in settings.items():
        pairs = [(shorter(key, told), value) for key, value in zip(keys, setting, strict=True) if key in told]
        labels[" ".join(f"{key}={value}" for key, value in pairs) or "all runs"] = records
    return {label: records for label, records in labels.items() if records}


def _settings(settings: Settings, keys: Sequence[str]) -> list[str]:
    """What changes from one setting to another beside ``keys``: a row a key; nothing where nothing does."""
    runs = [records[0] for records in settings.values() if records]
    every = dict.fromkeys(key for run in runs for key in run.settings)
    changed = [k for k in every if len({run.settings.get(k) for run in runs}) > 1 and k not in keys]
    labels = list(_labelled(settings, keys))
    if not changed or len(labels) > 6:
        return [escape(f"Beside {', '.join(keys)}, these change: {', '.join(changed)}.")] if changed else []
    rows = [[key, *(run.settings.get(key, "–") for run in runs)] for key in changed]
    return [table([["what else changes", *labels], *rows])]


def _counts(runs: Collection) -> str:
    """``18 of 20 runs finished, 2 failed``."""
    counts = Counter(record.status for record in runs.records if record.status != "finished")
    total = len(runs.records) - counts["left out"] - counts["skipped"]
    rest = [f", {count} {status}" for status, count in counts.items() if count]
    repeated = f", {len(runs.repeats)} of them repeated" if runs.repeats else ""
    finished = len(runs.finished) + len(runs.repeats)
    return f"{finished} of {total} runs finished{repeated}{''.join(rest)}"


def _summary(runs: Collection, flags: int) -> str:
    seeds, data, epochs = (
        ", ".join(sorted({r.values.get(key, "–") for r in runs.finished}, key=lambda v: (len(v), v)))
        for key in ("seed", "data.dataset", "trainer.max_epochs")
    )
    ways = f"{flags} way{'s' * (flags > 1)}"
    flagged = f" Flagged: runs differ in {ways} nobody asked for, see Provenance." if flags else ""
    varied = ", ".join(runs.keys) or "the seed alone"
    return f"{_counts(runs)}. Varied: {varied}. Seeds {seeds}; data {data}; epochs {epochs}.{flagged}"


def _verdict_rows(answers: Iterable[Answer]) -> list[list[str]]:
    """The table of verdicts: a row a question, and below it one a contrast where there are several."""
    rows = [["question", "on", "verdict", "effect (interval)", "seeds"]]
    for given in answers:
        if given.question.measured is not None:
            rows.append([given.question.text, "", given.verdict, "", "1"])
            continue
        lines = [
            [f"– {given.name(contrast)}", contrast.scope, f.verdict, given.effect(f), str(f.found.n)]
            for contrast, f in zip(given.question.contrasts, given.findings, strict=True)
        ]
        first = [given.question.text, lines[0][1], given.verdict, "", ""]
        rows += [first, *lines] if len(lines) > 1 else [[given.question.text, *first[1:3], *lines[0][3:]]]
    return rows


def _reading(answers: Sequence[Answer]) -> str:
    """How the verdicts came about."""
    tests = sum(not math.isnan(finding.p) for given in answers for finding in given.findings)
    metrics = {given.claim.metric for given in answers}
    sequential = [given for given in answers if given.question.sweep and given.question.sweep.max_seeds]
    shared = (
        "Sweeps with until=decided share out the level of 5 % among their own claims and looks, and their "
        "intervals are as wide as that needs."
    )
    lines = [
        "Runs are compared within a data set and a seed; several pairs of one seed count as their mean, so",
        "that the number of seeds is that of independent values.",
        "Intervals are those of the paired t-test, 95 %; a verdict needs p < 0.05 after correction over all",
        f"comparisons of this report ({tests}), for which the intervals are not widened.",
        "They cover what the seed decides (weights, order of batches, augmentation) on one split of the data",
        "and one test set, and neither another split nor other test images.",
        "Seeds needed are for 80 % power, should mean and spread stay, and for one look when all are there:",
        "looking after each seed until there is a verdict finds effects where there are none.",
        "sweep.until=decided looks after each seed and takes that into account.",
        *[shared] * bool(sequential),
        "In the figures dots are runs or seeds, faint lines join the runs of a pair, diamonds are means,",
        "with the interval where it is of an effect; bands of curves reach from the lowest to the highest",
        "run.",
        *(f"{metric} {meaning}." for metric, meaning in DERIVED.items() if metric in metrics),
    ]
    return " ".join(lines)


def _results(settings: Settings, keys: Sequence[str]) -> str:
    every = [record.results for records in settings.values() for record in records]
    first, *more = dict.fromkeys(key for results in every for key in metric_keys(results)) or ["loss"]
    test, order = f"test_{first}", (max, min)[:: row(first).sign]
    others = [f"test_{key}" for key in more]
    metrics = (*others, f"val_{first}", "train_seconds", "flops_per_image", "parameters")
    names = ["n", row(test).words, "best", "worst", *(row(metric).words for metric in others)]
    names += ["validation", "training", "FLOPs/image", "parameters"]
    rows: list[Sequence[object]] = [[*keys, *names]]
    for setting, records in settings.items():
        found = [value for record in records if (value := record.metric(test)) is not None]
        extremes = [units.number(test, f(found, default=None)) for f in order]
        means = [units.spread(metric, [record.metric(metric) for record in records]) for metric in metrics]
        rows.append([*setting, len(records), units.spread(test, found), *extremes, *means])
    return table(rows)


def _told_apart(a: Record, b: Record) -> list[str]:
    """What differs between two runs: data, seed, settings, and what nobody set, a line each."""
    known = [{"data": run.dataset, "seed": str(run.config.get("seed")), **run.settings} for run in (a, b)]
    known = [
        {**settings, **differences.circumstances(run)} for settings, run in zip(known, (a, b), strict=True)
    ]
    keys = dict.fromkeys([*known[0], *known[1]])
    names = [key for key in keys if known[0].get(key) != known[1].get(key)]
    lines = [f"{name}: {known[0].get(name, '–')} → {known[1].get(name, '–')}" for name in names]
    return lines or ["the two runs were told the same, with the same code, data, hardware and versions"]


def _came_out(a: Record, b: Record) -> list[str]:
    """The results of two runs, a line each."""
    names = dict.fromkeys(
        name
        for name in (*a.results, *b.results)
        if name.startswith(("test_", "val_")) and name not in DERIVED
    )
    lines = []
    for name in (*names, "train_seconds"):
        values = [run.metric(name) for run in (a, b)]
        if None not in values:
            first, second = (value or 0.0 for value in values)
            change = units.effect(name, False, second - first) + units.unit(name, is_effect=True)
            lines.append(f"{name}: {units.number(name, first)} → {units.number(name, second)}, {change}")
    of_images = [predictions.of_run(run) for run in (a, b)]
    if of_images[0] and of_images[1] and (found := predictions.agreement(of_images[0], of_images[1])):
        lines.append(
            f"image by image: both right {found.both:,}, only the first {found.first:,}, only the second "
            f"{found.second:,}, neither {found.neither:,}; McNemar p = {found.p:.2g} (of these two runs; "
            "only seeds tell of their settings)"
        )
    return lines


def _difference(a: Record, b: Record) -> list[str]:
    """Two runs: first what differs between them, then what came out."""
    blocks = []
    for title, lines in (("What differs", _told_apart(a, b)), ("What came out", _came_out(a, b))):
        blocks += [f"## {title}", "\n".join(f"- {escape(line)}" for line in lines)]
    return blocks


def _calibration(settings: Mapping[str, Sequence[Record]]) -> list[str]:
    """Of each setting what the predictions of its runs tell; nothing without any."""
    rows: list[list[str]] = []
    for label, records in settings.items():
        found = [made for record in records if (made := predictions.of_run(record))]
        if not found:
            continue
        c = predictions.calibration(found)
        ensemble = predictions.ensemble_accuracy(found) if len(found) > 1 else None
        rows.append([
            label, str(len(found)), units.number("test_acc", ensemble), units.number("ece", c.ece),
            units.number("nll", c.nll), f"{c.temperature:.2f}", units.number("ece", c.scaled_ece),
            units.number("nll", c.scaled_nll),
        ])  # fmt: skip
    header = [
        "from predictions.npz",
        "runs",
        "ensemble's accuracy",
        "calibration error",
        "NLL",
        "temperature",
    ]
    return [table([[*header, "error with it", "NLL with it"], *rows])] if rows else []


def _comparisons(given: Answer, delta: float | None) -> list[Comparison]:
    """What the picture of an answer shows: the contrasts of each data set apart."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for place, contrast in enumerate(given.question.contrasts):
        if not given.leader or given.leader in contrast.terms:
            groups.setdefault(tuple(dict.fromkeys(contrast.datasets.values())), []).append(place)
    made = []
    for datasets, places in groups.items():
        contrasts = [given.question.contrasts[place] for place in places]
        runs: dict[str, dict[str, dict[str, float]]] = {}
        for dataset in datasets:
            heading = contrasts[0].scope if len(datasets) == 1 else dataset
            cells = runs.setdefault(heading, {})
            for contrast in contrasts:
                for setting, cell in reversed(contrast.cells.items()):
                    if contrast.datasets[setting] == dataset and cell:
                        cells.setdefault(setting, {}).update({" ".join(pair): v for pair, v in cell.items()})
        effects = []
        for place, contrast in zip(places, contrasts, strict=True):
            found, name, seeds = given.findings[place].found, given.name(contrast), contrast.seeds
            mean, low, high = found.mean, found.low, found.high
            if (
                contrast.terms.get(given.leader, 1) < 0
            ):  # shown from the leader's side, as the verdict says it
                (other,) = set(contrast.terms) - {given.leader}
                name, seeds = f"{given.leader} − {other}", {seed: -value for seed, value in seeds.items()}
                mean, low, high = -mean, -high, -low
            effects.append(Effect(name, seeds, mean, low, high))
        if any(effect.seeds for effect in effects):
            claim = given.claim
            made.append(
                Comparison(
                    claim.metric, {name: cells for name, cells in runs.items() if cells}, effects,
                    given.claimed, equivalence(claim, delta), claim.is_ratio,
                )
            )  # fmt: skip
    return made


def _details(given: Answer) -> list[str]:
    """Of each contrast the test, the pairs it was made of, those that it lacks, and what else differs."""
    blocks = []
    if given.question.measured is not None:
        blocks.append(escape(f"Measured: {given.measured}."))
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
        same = f"the same settings, data and seed as {runs.names[kept.folder]}"
        rows.append([runs.names[folder], "repeated", same])
    claimed = [a.claim.metric for a in answers if a.question.measured is None]
    for record in runs.finished:
        for metric in dict.fromkeys([f"test_{headline(record.results)}", *claimed]):
            if record.metric(metric) is None:
                rows.append([runs.names[record.folder], "finished", f"no finite {metric}"])
    counts = ", ".join(f"{count} {status}" for status, count in Counter(row[1] for row in rows).items())
    listed = [f"{counts}:", table([["run", "status", "why"], *rows])] if rows else ["Nothing."]
    return [*listed, "\n".join(f"- {escape(note)}" for note in notes)]


def _write_csv(runs: Collection, path: Path) -> None:
    """A row for everything that was found."""
    results = [item for record in runs.records for item in record.results.items()]
    numbers = dict.fromkeys(key for key, value in results if not isinstance(value, dict | str | list))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["folder", "status", "reason", *runs.keys, "seed", *numbers])
        for record in runs.records:
            own: list[str | None] = [runs.names[record.folder], record.status, record.reason]
            own += [record.values.get(key) for key in (*runs.keys, "seed")]
            writer.writerow([*own, *map(record.results.get, numbers)])
