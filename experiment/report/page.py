"""The report as a folder: ``report.{md,html,tex}``, ``results.csv`` and ``figures/``."""

import csv
import math
import os
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from urllib.parse import quote

from matplotlib.figure import Figure

from experiment.errors import UserError
from experiment.metrics import row, units
from experiment.plots.comparison import MAX_SETTINGS, Comparison, Effect, Panel, curves, verdict
from experiment.plots.style import png, svg, write_png
from experiment.report import differences, latex, predictions, published
from experiment.report.answers import Answer, answer, claimed_size, equivalence
from experiment.report.html import page, runs_table
from experiment.report.questions import by_value, questions
from experiment.report.runs import DERIVED, Collection, Record, distinguishing_keys, shorter
from experiment.report.statistics import sign_flips
from experiment.results import headline, metric_keys
from experiment.schema import tokens
from experiment.terminal import announced

LONG_LABEL = 45  # characters, which fit a narrow picture
FILES = {"report.md", "report.html", "report.tex", "results.csv", "figures"}
RUNS_TABLE = "<!-- the table of all runs stands in report.html -->"
READING = """
Runs are compared within a data set and a seed; several pairs of one seed count as their mean, so that the
number of seeds is that of independent values. Intervals are those of the paired t-test, 95 %; a verdict
needs p < 0.05 after correction over all comparisons of this report ({tests}), for which the intervals are
not widened.{looks} They cover what the seed decides (weights, order of batches, augmentation) on one split
of the data and one test set, and neither another split nor other test images; where data.fold varies,
another split, too, with the correction for overlapping training sets (Nadeau, Bengio 2003). Seeds needed
are for 80 % power, should mean and spread stay, and for one look when all are there: looking after each
seed until there is a verdict finds effects where there are none. In the figures dots are runs or seeds,
faint lines join the runs of a pair, diamonds are means, with the interval where it is of an effect; bands
of curves reach from the lowest to the highest run."""
LOOKS = (
    " Of {sweeps}, which looked after each seed until it was decided, {number} more comparisons are told: "
    "each such sweep has a level of 5 % for itself, shared out beforehand among its claims and looks, and "
    "intervals as wide as that needs. Effect and interval are those of the look that decided; seeds that "
    "came later, for other claims, are shown and change nothing."
)
PEEKING = (
    "Seeds added until there is a verdict find what is not there; sweep.until=decided adds them validly."
)
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
    out = (out or folders[0] / "report").absolute()
    if out.exists() and not (out.is_dir() and {path.name for path in out.iterdir()} <= FILES):
        raise UserError(f"{out} is something else than a report: give another out=FOLDER")
    runs = Collection(folders)
    with announced(lambda: f"comparing {len(runs.finished):,} runs …"):
        report = Report(runs, out, delta)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # made beside its place and moved there in one go: a failure on the way leaves what was there
        with tempfile.TemporaryDirectory(prefix=".report-", dir=out.parent) as work:
            new = Path(work) / "new"
            (new / "figures").mkdir(parents=True)
            with announced(lambda: f"drawing the figures of {len(runs.finished):,} runs …"):
                report.write(new)
            if out.exists():
                out.rename(Path(work) / "old")
            new.rename(out)
    except OSError as refusal:
        raise UserError(f"no report can be written to {out}: {refusal.strerror or refusal}") from refusal
    return report.conclusion


class Report:
    """What is reported of runs.

    Args:
        runs: all of them.
        out: the folder in which the report will lie.
        delta: see :func:`write_report`.
    """

    def __init__(self, runs: Collection, out: Path, delta: float | None) -> None:
        self.runs, self.out, self.delta = runs, out, delta
        self.metrics = list(dict.fromkeys(key for run in runs.finished for key in metric_keys(run.results)))
        self.first = next(iter(self.metrics), "loss")  # that speaks for the runs
        asked, self.notes = questions(runs, f"test_{self.first}")
        self.answers = answer(asked, runs, delta)
        self.title = ", ".join([*(sweep.name for sweep in runs.sweeps), *["single runs"] * bool(runs.loose)])
        self.pictures: dict[str, str] = {}
        self.two: dict[str, list[str]] = {}  # of two runs first what differs, then what came out
        if len(runs.records) == 2 and not runs.sweeps and all(run.config for run in runs.records):
            pair = runs.records[0], runs.records[1]
            self.two = {"What differs": differences.between(*pair), "What came out": _came_out(*pair)}

    @property
    def conclusion(self) -> str:
        """What the command line says: the verdicts, and where the report is."""
        verdicts = [f"{given.question.text}  {given.verdict}" for given in self.answers]
        peeking = any(
            "more seed" in given.verdict and not given.question.is_sequential for given in self.answers
        )
        verdicts += [PEEKING] * peeking
        apart = [line for lines in self.two.values() for line in lines]
        return "\n".join([*apart, *verdicts, _counts(self.runs), f"report: {self.out / 'report.html'}"])

    def write(self, folder: Path) -> None:
        """Write all of the report into an empty folder with an empty ``figures/``."""
        text = "\n\n".join(block for block in self._blocks(folder) if block) + "\n"
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
        for title, lines in self.two.items():
            blocks += [f"## {title}", _listed(lines)]
        if answers:
            fixed = [given for given in answers if not given.question.is_sequential]
            tests = sum(not math.isnan(finding.p) for given in fixed for finding in given.findings)
            derived = [
                f"{name} {DERIVED[name]}." for name in {a.claim.metric: 0 for a in answers} if name in DERIVED
            ]
            asking = [given.question.sweep for given in answers if given.question.is_sequential]
            looked = {sweep.name: sweep.contrasts for sweep in asking if sweep}
            looks = LOOKS.format(sweeps=" and ".join(looked), number=sum(looked.values())) if looked else ""
            reading = " ".join([READING.format(tests=tests, looks=looks), *derived])
            blocks += ["## Verdicts", table(_verdict_rows(answers)), escape(reading)]
        parts = [(sweep.name, runs.of(sweep), sweep.swept) for sweep in runs.sweeps]
        parts += [("single runs", runs.loose, runs.keys)] if runs.loose else []
        swept = {key for sweep in runs.sweeps for key in sweep.swept}
        for number, (name, records, own) in enumerate(parts, 1):
            keys = [key for key in runs.keys if key in own or key not in swept]
            settings = _by_setting(records, keys)
            blocks += [
                f"## Results: {escape(name)}",
                _results(settings, keys),
                _what_else_changes(settings, keys),
            ]
            if labelled := _labelled(settings, keys):
                best = sorted(labelled, key=lambda label: self._rank(labelled[label]))[:MAX_SETTINGS]
                shown = {label: labelled[label] for label in labelled if label in best}
                note = (
                    f"Below, the best {len(shown)} of {len(labelled)} settings."
                    if len(best) < len(labelled)
                    else ""
                )
                blocks += [note, self._curves(folder, shown, keys, name, number), _calibration(shown)]
        for number, given in enumerate(answers, 1):
            blocks += [f"## {number}. {escape(given.question.text)}", f"**{escape(given.verdict)}**"]
            if comparisons := _comparisons(given, self.delta):
                drawn = verdict(given.question.text, given.verdict, comparisons)
                blocks.append(self._picture(folder, drawn, f"question-{number}"))
            blocks += _details(given)
            blocks += [f"Next: <code>{escape(given.next_step)}</code>"] if given.next_step else []
        for sweep in runs.sweeps:
            blocks += self._published(folder, runs.of(sweep))
        blocks += ["## All runs", RUNS_TABLE, "## Provenance", *_provenance(runs, flags)]
        return [*blocks, "## What is missing", *_missing(runs, answers), _listed(self.notes)]

    def _rank(self, runs: Sequence[Record]) -> float:
        """The lower, the better a setting."""
        test = f"test_{self.first}"
        found = [value for run in runs if (value := run.metric(test)) is not None]
        return -row(test).sign * fmean(found) if found else math.inf

    def _curves(
        self, folder: Path, shown: Mapping[str, Sequence[Record]], keys: Sequence[str], name: str, number: int
    ) -> str:
        """The metric that speaks for the runs, and the training loss, over epochs, each data set apart."""
        pictures = []
        records = [run for runs in shown.values() for run in runs]
        for place, dataset in enumerate(dict.fromkeys(run.dataset for run in records)):
            of = _labelled(_by_setting([run for run in records if run.dataset == dataset], keys), keys)
            drawn = {label: [run.rows for run in runs] for label, runs in of.items()}
            every = [row for runs in drawn.values() for rows in runs for row in rows]
            kinds = dict.fromkeys(_loss(run) for runs in of.values() for run in runs)
            note = f"; of different kinds: {', '.join(kinds)}" if len(kinds) > 1 else ""
            for panel in (Panel(f"val_{self.first}", drawn), Panel("train_loss", drawn, note=note)):
                # not all validate, and of one epoch the tables say all
                if len({row["epoch"] for row in every if row.get(panel.metric) is not None}) > 1:
                    title = f"{name} on {dataset}"
                    file = f"{panel.metric}-{number}{f'-{place + 1}' * (place > 0)}"
                    pictures.append(self._picture(folder, curves([panel], title), file))
        return "\n".join(pictures)

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
            texts = [runs.names[record.folder], record.status]
            texts += [record.values.get(key, "") for key in (*runs.keys, "seed")]
            values = [(record.metric(metric), metric) for metric in numbers]
            cells = [("" if v is None else f"{v:.9g}", units.number(metric, v)) for v, metric in values]
            rows.append([*zip(texts, texts, strict=True), *cells])
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


def _listed(lines: Iterable[str], before: str = "") -> str:
    return "\n".join(f"- {before}{escape(line)}" for line in lines)


def _loss(run: Record) -> str:
    """The kind of a run's training loss: curves of two kinds are not comparable."""
    smoothing = run.settings.get("loss.label_smoothing", "0")
    name = run.choices.get("loss") or run.settings.get("loss._target_", "loss").rpartition(".")[2]
    return f"{name} {smoothing}" if smoothing != "0" else name.replace("label_smoothing", "cross_entropy")


def _by_setting(records: Iterable[Record], keys: Sequence[str]) -> Settings:
    """The finished runs of each combination of values, and none where all are missing."""
    settings: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in records:
        if record.config or all(key in record.values for key in keys):
            setting = tuple(record.values.get(key, "–") for key in keys)
            settings[setting] += [record] * (record.status == "finished")
    return settings


def _labelled(settings: Settings, keys: Sequence[str]) -> dict[str, Sequence[Record]]:
    """Settings that have runs, by a label of as few keys as tell them apart.

    Where that is long, a label names only what most of the settings do not have.
    """
    trained = {setting: records for setting, records in settings.items() if records}
    distinguishing = distinguishing_keys([run for records in trained.values() for run in records], keys)
    chosen = [{k: v for k, v in zip(keys, s, strict=True) if k in distinguishing} for s in trained]

    def labels() -> list[str]:
        return [" ".join(f"{shorter(k, distinguishing)}={v}" for k, v in each.items()) for each in chosen]

    if max(map(len, labels()), default=0) > LONG_LABEL:
        for key in distinguishing:
            value, count = Counter(each[key] for each in chosen).most_common(1)[0]
            if 2 * count > len(chosen):
                chosen = [{k: v for k, v in each.items() if (k, v) != (key, value)} for each in chosen]
    alone = "all runs" if len(trained) < 2 else "what most settings have"
    return {label or alone: records for label, records in zip(labels(), trained.values(), strict=True)}


def _what_else_changes(settings: Settings, keys: Sequence[str]) -> str:
    """What changes from one setting to another beside ``keys``: a row a key; nothing where nothing does."""
    runs = [records[0] for records in settings.values() if records]
    every = dict.fromkeys(key for run in runs for key in run.settings)
    changed = [k for k in every if len({run.settings.get(k) for run in runs}) > 1 and k not in keys]
    labels = list(_labelled(settings, keys))
    if not changed or len(labels) > 6:
        return escape(f"Beside {', '.join(keys)}, these change: {', '.join(changed)}.") if changed else ""
    rows = [[key, *(run.settings.get(key, "–") for run in runs)] for key in changed]
    return table([["what else changes", *labels], *rows])


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
        lines = [
            [f"– {given.name(contrast)}", contrast.scope, f.verdict, given.effect(f), str(f.found.n)]
            for contrast, f in given.parts
        ]
        scopes = dict.fromkeys(contrast.scope for contrast, _ in given.parts)
        first = [given.question.text, lines[0][1] if len(scopes) == 1 else "", given.verdict, "", ""]
        rows += [first, *lines] if len(lines) > 1 else [[*first[:3], *lines[0][3:]]]
    return rows


def _results(settings: Settings, keys: Sequence[str]) -> str:
    every = [record.results for records in settings.values() for record in records]
    first, *more = dict.fromkeys(key for results in every for key in metric_keys(results)) or ["loss"]
    test, order = f"test_{first}", (max, min)[:: row(first).sign]
    others = [f"test_{key}" for key in more]
    metrics = (*others, f"val_{first}", "train_seconds", "flops_per_image", "parameters")
    names = ["n", row(test).words, "best", "worst", *(row(metric).words for metric in others)]
    rows: list[Sequence[object]] = [[*keys, *names, "validation", "training", "FLOPs/image", "parameters"]]
    for setting, records in settings.items():
        found = [value for record in records if (value := record.metric(test)) is not None]
        extremes = [units.number(test, f(found, default=None)) for f in order]
        means = [units.spread(metric, [record.metric(metric) for record in records]) for metric in metrics]
        rows.append([*setting, len(records), units.spread(test, found), *extremes, *means])
    return table(rows)


def _came_out(a: Record, b: Record) -> list[str]:
    """The results of two runs, a line each."""
    lines = [f"{run.folder.name}: {run.status} {run.reason}" for run in (a, b) if run.status != "finished"]
    for name in (*dict.fromkeys([*a.results, *b.results]), "train_seconds"):
        first, second = a.metric(name), b.metric(name)
        is_shown = name.startswith(("test_", "val_", "train_seconds")) and name not in DERIVED
        if is_shown and first is not None and second is not None:
            change = units.effect(name, False, second - first) + units.unit(name, is_effect=True)
            lines.append(f"{name}: {units.number(name, first)} → {units.number(name, second)}, {change}")
    of_images = [kept for run in (a, b) if (kept := predictions.of_run(run))]
    if len(of_images) < 2:
        return list(dict.fromkeys(lines))
    found = predictions.agreement(*of_images)
    if not found or (a.dataset, a.fingerprint) != (b.dataset, b.fingerprint):
        lines.append("image by image: not compared, the two were tested on different images")
    else:
        lines.append(
            f"image by image: both right {found.both:,}, only the first {found.first:,}, only the second "
            f"{found.second:,}, neither {found.neither:,}; McNemar p = {found.p:.2g} (of these two runs; "
            "only seeds tell of their settings)"
        )
    return list(dict.fromkeys(lines))


def _calibration(settings: Mapping[str, Sequence[Record]]) -> str:
    """Of each setting what the predictions of its runs tell; nothing without any."""
    names = ("ensemble's accuracy", "calibration error", "NLL", "temperature", "error with it", "NLL with it")
    rows = [["from predictions.npz", "runs", *names]]
    for label, records in settings.items():
        if found := [made for record in records if (made := predictions.of_run(record))]:
            c = predictions.calibration(found)
            ensemble = predictions.ensemble_accuracy(found) if len(found) > 1 else None
            before, after = (
                [units.number("ece", ece), units.number("nll", nll)]
                for ece, nll in ((c.ece, c.nll), (c.scaled_ece, c.scaled_nll))
            )
            accuracy = units.number("test_acc", ensemble)
            rows.append([label, str(len(found)), accuracy, *before, f"{c.temperature:.2f}", *after])
    return table(rows) if len(rows) > 1 else ""


def _comparisons(given: Answer, delta: float | None) -> list[Comparison]:
    """What the picture of an answer shows: the contrasts of each data set apart."""
    claim, leader = given.claim, given.question.leader
    size = claimed_size(claim) if claim.claimed else None
    groups: dict[tuple[str, ...], Comparison] = {}
    for contrast, finding in given.parts:
        if not contrast.seeds or (leader and leader not in contrast.terms):
            continue
        datasets = tuple(dict.fromkeys(contrast.datasets.values()))
        one = groups.setdefault(
            datasets,
            Comparison(claim.metric, {}, [], size, equivalence(claim, delta), claim.is_ratio),
        )
        found = finding.found
        dots = {" ".join(pair): value for pair, value in contrast.seeds.items()}
        one.effects.append(Effect(given.name(contrast), dots, found.mean, found.low, found.high))
        for setting, cell in reversed(contrast.cells.items()):
            dataset = contrast.datasets[setting]
            heading = contrast.scope if len(datasets) == 1 else dataset
            dots = one.runs.setdefault(heading, {}).setdefault(setting, {})
            dots.update({" ".join(pair): value for pair, value in cell.items()})
    for runs in (runs for one in groups.values() for runs in one.runs.values() if leader):
        for setting in sorted(runs, key=lambda setting: [by_value(value) for _, value in tokens(setting)]):
            runs[setting] = runs.pop(setting)
    return list(groups.values())


def _details(given: Answer) -> list[str]:
    """Of each contrast the test, the pairs it was made of, those that it lacks, and what else differs."""
    blocks = []
    for contrast, finding in given.parts:
        found, metric, unit = finding.found, given.claim.metric, "folds" if contrast.folds else "seeds"
        text = f"{given.name(contrast)} on {contrast.scope}: {given.effect(finding)}; {found.n} {unit}"
        if not math.isnan(found.p):
            text += f", p = {found.p:.2g}"
            text += "" if math.isnan(finding.p) else f", corrected {finding.p:.2g}"
            flips = sign_flips(list(contrast.seeds.values()))
            text += f", by sign flips {flips:.2g}" if not contrast.folds else ""
        text += f". Verdict: {finding.verdict}."
        if contrast.across:
            text += f" From one data set to the other {', '.join(contrast.across)} change as well."
        lone = [f"{' '.join(pair)} (no {', no '.join(lack)})" for pair, lack in contrast.unpaired.items()]
        text += f" {len(lone)} without partner: {'; '.join(lone)}." if lone else ""
        rows = [["pair", *contrast.terms, "effect"]]
        for pair, value in contrast.values.items():
            cells = [units.number(metric, contrast.cells[setting][pair]) for setting in contrast.terms]
            rows.append([" ".join(pair), *cells, units.effect(metric, given.claim.is_ratio, value)])
        blocks += [
            escape(text),
            table(rows) if found.n else "",
            _listed(contrast.caveats, "Among these runs "),
        ]
    return blocks


def _provenance(runs: Collection, flags: Sequence[str]) -> list[str]:
    facts = [[name, differences.several(v)] for name, v in differences.facts(runs.finished).items()]
    times = [str(r.provenance[key]) for r in runs.finished for key in ("start", "end") if key in r.provenance]
    trained = [["trained", f"{min(times)} to {max(times)}"]] if times else []
    sessions = [session for sweep in runs.sweeps for session in sweep.sessions]
    commands = [f"{s.get('start')} at {differences.code(s.get('git'))}: {s.get('command')}" for s in sessions]
    commands += dict.fromkeys(str(record.provenance.get("command")) for record in runs.loose)
    return [
        _listed(flags, "Flagged: ") or "Nothing flagged.",
        table([["what", "value"], *facts, *trained]),
        "\n".join(f"- <code>{escape(command)}</code>" for command in commands),
    ]


def _missing(runs: Collection, answers: Iterable[Answer]) -> list[str]:
    rows = [[runs.names[r.folder], r.status, r.reason] for r in runs.records if r.status != "finished"]
    for folder, kept in runs.repeats.items():
        (run,) = [run for run in runs.records if run.folder == folder]
        other = [flag.partition(":")[0] for flag in differences.flags([run, kept])]
        same = f"the same settings, data and seed as {runs.names[kept.folder]}{'; '.join(['', *other])}"
        rows.append([runs.names[folder], "repeated", same])
    claimed = [given.claim.metric for given in answers]
    for record in runs.finished:
        for metric in dict.fromkeys([f"test_{headline(record.results)}", *claimed]):
            if record.metric(metric) is None:
                rows.append([runs.names[record.folder], "finished", f"no finite {metric}"])
    counts = ", ".join(f"{count} {status}" for status, count in Counter(row[1] for row in rows).items())
    return [f"{counts}:", table([["run", "status", "why"], *rows])] if rows else ["Nothing."]


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
