"""What the statistics answer to the questions: verdicts, winners, and what to run next."""

import math
import shlex
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from experiment.metrics import row, units
from experiment.report.questions import Claim, Contrast, Question
from experiment.report.runs import Collection
from experiment.report.sequential import look_levels
from experiment.report.statistics import (
    LEVEL,
    Estimate,
    corrected,
    estimate,
    estimate_over_folds,
    pairs_needed,
)
from experiment.schema import tokens

EXACT = ("parameters", "flops_per_image")
"""Metrics that do not depend on the seed."""
MANY = 1000  # seeds that nobody will train


@dataclass
class Finding:
    """What was found of a contrast.

    Args:
        found: mean over the seeds, with its interval.
        level: of the tests: 0.05, or a look's in a sequential sweep.
        p: corrected p of no effect, NaN without a test.
        p_size: corrected p of the claimed size.
        p_equivalent: corrected p of an effect outside ±delta.
        verdict: in words; what stands before the colon or comma is one of :data:`VERDICTS`.
    """

    found: Estimate
    level: float = LEVEL
    p: float = math.nan
    p_size: float = math.nan
    p_equivalent: float = math.nan
    verdict: str = ""

    @property
    def is_significant(self) -> bool:
        """Whether there is an effect."""
        return self.p < self.level


VERDICTS = {
    "held": "good", "held in direction": "good", "better": "good", "equivalent": "neutral",
    "no such effect": "bad", "contradicted": "bad", "worse": "bad", "undecided": "open", "no verdict": "open",
    "decided": "good",
}  # fmt: skip
"""First words of a verdict, and what they mean for the claim."""


@dataclass
class Answer:
    """A question with what was found: a finding for each contrast, the verdict and the next command."""

    question: Question
    findings: list[Finding]
    verdict: str = ""
    next_step: str = ""

    @property
    def claim(self) -> Claim:
        """What is claimed or asked."""
        return self.question.claim

    @property
    def parts(self) -> list[tuple[Contrast, Finding]]:
        """Each contrast with what was found of it."""
        return list(zip(self.question.contrasts, self.findings, strict=True))

    def name(self, contrast: Contrast) -> str:
        """The sum as one writes it: ``optimizer.lr=0.1 − optimizer.lr=0.01``, with ÷ for a ratio."""
        text, (plus, minus) = "", ("×", "÷") if self.claim.is_ratio else ("+", "−")
        for setting, weight in contrast.terms.items():
            size = "" if abs(weight) == 1 else f"{abs(weight):g} "
            named = f"({setting})" if " " in setting else setting
            text += f" {minus if weight < 0 else plus} {size}{named}"
        return text.removeprefix(f" {plus} ").strip()

    def effect(self, finding: Finding) -> str:
        """The size of a contrast with its interval, and where the claimed size lies."""
        found, claim = finding.found, self.claim
        if not found.n:
            return "–"
        least, most = claimed_size(claim)
        numbers = (found.mean, found.low, found.high, least, most)
        mean, low, high, *sizes = (units.effect(claim.metric, claim.is_ratio, number) for number in numbers)
        interval = f" ({low} to {high})" if found.low < found.high else ""
        text = mean + interval + unit_of(claim)
        if claim.claimed and not math.isnan(found.low):
            where = "inside" if least == most else "in part inside"
            where = "larger than" if found.high < least else "smaller than" if found.low > most else where
            text += f". The claimed {' to '.join(dict.fromkeys(sizes))} is {where} the interval"
        return text


def answer(asked: Sequence[Question], runs: Collection, delta: float | None = None) -> list[Answer]:
    """The answers to questions of one report: their tests are corrected together.

    Args:
        asked: all that one report tells.
        runs: that they are asked of.
        delta: an effect within ±delta counts as none, where the claim does not say it.
    """
    answers = [
        Answer(question, [_finding(question, contrast) for contrast in question.contrasts])
        for question in asked
    ]
    tests: list[tuple[tuple[int, int], float]] = []
    places: list[tuple[Finding, str]] = []
    for number, given in enumerate(answers):
        for place, (contrast, finding) in enumerate(given.parts):
            if contrast.failed or contrast.along:
                continue  # no verdict is asked of it, so that it costs the others nothing
            for name, p in _tests(given.claim, finding, delta).items():
                if given.question.is_sequential:
                    setattr(finding, name, p)  # has its share of the level, see sequential
                else:
                    tests.append(((number, place), p))
                    places.append((finding, name))
    for (finding, name), p in zip(places, corrected(tests), strict=True):
        setattr(finding, name, p)
    number_of_tests = len({place for place, p in tests if not math.isnan(p)})
    for given in answers:
        for contrast, finding in given.parts:
            finding.verdict = _verdict(given.question, contrast, finding, delta, number_of_tests)
        given.verdict = _winner(given) if given.question.changed else _of_claim(given)
        lacking = {s: of for contrast, _ in given.parts for s, of in contrast.lacking.items()}
        if lacking and not given.verdict.startswith(("undecided", "no verdict")):
            given.verdict += f", so far: {listed(lacking)} have no result yet"
        given.next_step = next_step(given, runs, number_of_tests)
    return answers


def is_decided(asked: Sequence[Question], runs: Collection) -> bool:
    """Whether every claim of a sequential sweep has a verdict, or can have none; valid after every seed."""
    return not any("undecided" in given.verdict for given in answer(asked, runs) if given.question.sweep)


def _finding(question: Question, contrast: Contrast) -> Finding:
    """Mean and interval over seeds.

    In a sequential sweep those of the first look that decided, or of the last one: seeds added for another
    claim change nothing.
    """
    size = 1.0 if question.claim.is_ratio else contrast.size
    sweep = question.sweep
    if contrast.folds:
        return Finding(estimate_over_folds(contrast.seeds, contrast.folds, size))
    values = list(contrast.seeds.values())
    if not (sweep and sweep.max_seeds):
        return Finding(estimate(values, size))
    finding = Finding(estimate(values, size), 0.0)
    for n, level in look_levels(sweep.max_seeds, LEVEL / sweep.contrasts).items():
        if n <= len(values):
            finding = Finding(estimate(values[:n], size, max(level, 1e-12)), level)
            for name, p in _tests(question.claim, finding, None).items():
                setattr(finding, name, p)
            if not _verdict(question, contrast, finding, None, 1).startswith("undecided"):
                break
    return finding


def _tests(claim: Claim, finding: Finding, delta: float | None) -> dict[str, float]:
    """The p-values of a contrast: no effect, the claimed size, an effect beyond ±delta."""
    found = finding.found
    tests = {"p": found.p}
    if claim.claimed:
        least, most = claimed_size(claim)
        below, above = found.mean < least, found.mean > most
        one_sided = found.p_below(least) if below else found.p_above(most) if above else 1.0
        tests["p_size"] = min(1.0, 2 * one_sided)
    if (half := equivalence(claim, delta)) is not None:
        # a look's interval is two-sided: both one-sided tests at half its level
        tests["p_equivalent"] = found.p_equivalent(half) * (1 if finding.level == LEVEL else 2)
    return tests


def unit_of(claim: Claim) -> str:
    """The unit behind an effect; a factor has none."""
    return "" if claim.is_ratio else units.unit(claim.metric, is_effect=True)


def claimed_size(claim: Claim) -> tuple[float, float]:
    """The claimed size, from–to, as the effect is measured; NaN, beyond which nothing lies, for none."""
    least, most = claim.claimed or (math.nan, math.nan)
    return (math.log(least), math.log(most)) if claim.is_ratio else (least, most)


def equivalence(claim: Claim, delta: float | None) -> float | None:
    """Half the width of the region in which an effect counts as none: the claim's, its size, or ``delta``."""
    if claim.delta is not None:
        return math.log1p(claim.delta) if claim.is_ratio else claim.delta
    if claim.claimed:
        return min(map(abs, claimed_size(claim)))
    return delta


def _verdict(
    question: Question, contrast: Contrast, finding: Finding, delta: float | None, tests: int
) -> str:
    """What a contrast says, in words."""
    claim, found = question.claim, finding.found
    words = ("better", "worse")[:: row(claim.metric).sign]  # of a higher value and of a lower one
    good, bad = words if question.changed else ("held", "contradicted")
    if contrast.failed:
        return f"no verdict: {listed(contrast.failed)} failed, and those that are left are survivors"
    if contrast.along:
        named = dict.fromkeys(key for term in contrast.terms for key, _ in tokens(term))
        return f"no verdict: these settings change together: {', '.join([*named, *contrast.along])}"
    if found.n == 0:
        return f"undecided: no seed has {claim.metric} of every setting"
    if claim.metric in EXACT and not found.sd > 0:
        return (good if found.mean > 0 else bad) if found.mean else "undecided: no difference"
    unit = "fold" if contrast.folds else "seed"
    if found.n == 1:
        return f"undecided: one {unit} gives no interval, at least 1 more {unit} needed"
    if found.sd == 0:
        how = "differ by the same amount, there is no spread to test against" if found.mean else "are equal"
        return f"undecided: in all {found.n} {unit}s the settings {how}"
    least, most = claimed_size(claim)
    is_sized = finding.p_size < finding.level
    if finding.is_significant and found.mean < 0:
        return bad
    if finding.is_significant:
        if is_sized and found.mean < least:
            return "held in direction, smaller than claimed"
        return "held: larger than claimed" if is_sized and found.mean > most else good
    if finding.p_equivalent < finding.level:
        half = units.effect(claim.metric, claim.is_ratio, equivalence(claim, delta) or 0.0).lstrip("+×")
        sign = "×÷" if claim.is_ratio else "±"
        return f"equivalent: within {sign}{half}{unit_of(claim)}"
    if is_sized and found.mean < least:
        return "no such effect: the claimed size is excluded"
    if question.sweep and question.sweep.max_seeds:
        left = question.sweep.max_seeds - found.n
        until = f"{left} more seeds until sweep.max_seeds" if left > 0 else "sweep.max_seeds reached"
        return f"undecided: {until}"
    if found.mean < 0 and good == "held" and not claim.claimed:
        return "undecided: so far the mean goes the other way"
    if contrast.folds:
        return f"undecided: {found.n} folds do not tell"
    more = _more_seeds(claim, found, tests)
    if more > MANY:
        return f"undecided: more than {MANY} more seeds needed"
    return f"undecided: about {more:.0f} more seed{'s' * (more > 1)} needed"


def _more_seeds(claim: Claim, found: Estimate, tests: int) -> float:
    """Further seeds until the effect or the claimed size can be decided, should mean and spread stay."""
    least, _ = claimed_size(claim)
    distances = [found.mean, found.mean - least] if claim.claimed and found.mean < least else [found.mean]
    needed = min(1e9, *(pairs_needed(distance, found.sd, max(tests, 1)) for distance in distances))
    return max(1.0, math.ceil(needed - found.n))


def _of_claim(given: Answer) -> str:
    """A claim holds if all its contrasts do, and is contradicted if one is."""
    verdicts = [finding.verdict for finding in given.findings]
    if len(set(verdicts)) == 1:
        return verdicts[0]
    if "contradicted" in verdicts:
        return "contradicted"
    for word in ("no verdict", "no such effect", "equivalent"):
        if having := [verdict for verdict in verdicts if verdict.startswith(word)]:
            return f"{having[0]} ({len(having)} of {len(verdicts)} comparisons)"
    if all(verdict.startswith("held") for verdict in verdicts):
        smaller = any(verdict.startswith("held in direction") for verdict in verdicts)
        return "held in direction, smaller than claimed in part" if smaller else "held"
    counts = Counter(verdict.partition(":")[0] for verdict in verdicts)
    return f"undecided: {', '.join(f'{count} {word}' for word, count in counts.items())}"


def listed(runs: Mapping[str, tuple[int, int]]) -> str:
    """``3 of 5 runs of model.dropout=0.5``."""
    return ", ".join(f"{some} of {n} runs of {setting}" for setting, (some, n) in runs.items())


def _winner(given: Answer) -> str:
    """Which setting is best, by how much and how sure."""
    question, leader = given.question, given.question.leader
    if failed := [finding.verdict for contrast, finding in given.parts if contrast.failed]:
        return failed[0]
    sign = row(given.claim.metric).sign
    found: dict[str, dict[str, Finding]] = defaultdict(dict)  # of a setting less another
    beats: set[tuple[str, str]] = set()
    for contrast, finding in given.parts:
        plus, minus = sorted(contrast.terms, key=lambda setting: -contrast.terms[setting])
        found[plus][minus] = finding
        if finding.is_significant:
            beats.add((plus, minus) if sign * finding.found.mean > 0 else (minus, plus))
    led = {other: finding for other, finding in found[leader].items() if finding.found.n}
    if not led:
        return f"undecided: no seed has {given.claim.metric} of two settings"
    rivals = [other for other in led if (leader, other) not in beats]
    beaten = [other for other in led if other not in rivals]
    runner_up = min(rivals or led, key=lambda other: sign * led[other].found.mean)
    closest = led[runner_up]
    by = given.effect(closest)
    unpaired = [setting for setting in dict.fromkeys(s for c, _ in given.parts for s in c.terms)
                if setting != leader and setting not in led]  # fmt: skip
    together = ""
    if len(question.changed) > 1:
        named = ", ".join(question.changed)
        together = f"these settings change together ({named}), no verdict on one of them: "
    if not rivals and not unpaired:
        rest = " and all others" * (len(led) > 1)
        return f"decided: {together}{leader} beats {runner_up}{rest}: {by}, p = {closest.p:.2g} corrected"
    text = f"undecided: {together}{leader} {'leads' if rivals else 'beats'} {', '.join(rivals or led)}"
    if sign * closest.found.mean < 0:
        text = f"undecided: {together}no setting is ahead of all others, {leader} comes nearest"
    elif rivals and not unpaired and all(led[other].verdict.startswith("equivalent") for other in rivals):
        text = f"equivalent: {together}{leader} and {', '.join(rivals)}, {by}"
    elif closest.found.mean == 0 and not closest.found.sd > 0:
        seeds = "one seed" if closest.found.n == 1 else f"all {closest.found.n} seeds"
        text = f"undecided: {together}{leader} and {runner_up} are equal in {seeds}"
    elif closest.found.n == 1:
        text += f", by {by}, in one seed"
    elif closest.found.sd == 0:
        text += f", by {by} over {runner_up}: {closest.verdict.removeprefix('undecided: ')}"
    else:
        text += f", by {by} over {runner_up}" + ", but chance may do that" * (runner_up in rivals)
    if beaten and rivals:
        clear = all((rival, other) in beats for rival in rivals for other in beaten)
        who = ("both" if len(rivals) == 1 else "all of them") if clear else leader
        text += f"; {who} beat{'s' * (not clear)} {', '.join(beaten)}"
    return f"{text}; no seed has it and {' or '.join(unpaired)}" if unpaired else text


def next_step(given: Answer, runs: Collection, tests: int) -> str:
    """The command that would tell more, or that trains with the winner; empty where there is none."""
    question, sweep, verdict = given.question, given.question.sweep, given.verdict
    if sweep is None and len(runs.sweeps) == 1 and not runs.loose:
        sweep = runs.sweeps[0]
    started = sweep.sessions[-1].get("command") if sweep and sweep.sessions else question.contrasts[0].command
    program, *words = shlex.split(str(started or ""))[1:] or [""]
    if Path(program).name not in ("train.py", "lic-train"):  # a script or a notebook
        return ""
    train = ["python", program] if program.endswith(".py") else [Path(program).name]
    words = [word for word in words if word not in ("-m", "--multirun")]

    def without(*keys: str) -> list[str]:
        return [word for word in words if not word.lstrip("+").startswith(keys)]

    kept = without("sweep.", "seed=", "name=", "resume=", *(f"{key}=" for key in question.changed))
    terms = list(dict.fromkeys(term for contrast in question.contrasts for term in contrast.terms))
    is_open = verdict.startswith(("undecided", "no verdict"))
    is_begun = any(contrast.failed or contrast.lacking for contrast in question.contrasts)
    if verdict.startswith("decided") and not is_begun:
        if "=–" in question.leader:  # it lacks a key that others have
            return ""
        varied = [word for word in kept if word.lstrip("+").partition("=")[0] in runs.keys]
        once = [word for word in kept if not word.startswith("hydra")]
        winner = [f"{key}={value}" for key, value in tokens(question.leader)]
        return shlex.join([*train, *(["-m", *kept] if varied and sweep else once), *winner])
    if is_begun and sweep:
        return shlex.join(
            [*train, "-m", *without("sweep.name=", "sweep.dry_run="), f"sweep.name={sweep.name}"]
        )
    if not is_open or any(c.folds or c.along for c in question.contrasts):
        return ""
    found = [
        f for c, f in given.parts if f.verdict.startswith("undecided") and question.leader in ("", *c.terms)
    ]
    if question.is_sequential or not found or not any(f.found.n for f in given.findings):
        return ""
    needed = max(
        f.found.n + (_more_seeds(given.claim, f.found, tests) if f.found.sd > 0 else 3) for f in found
    )
    if needed > MANY:
        return ""
    pairs = [pair for contrast in question.contrasts for pair in (*contrast.values, *contrast.unpaired)]
    known = {int(pair[0].removeprefix("seed=")) for pair in pairs}
    unused = (seed for seed in range(MANY + len(known)) if seed not in known)
    seeds = sorted([*known, *islice(unused, max(0, int(needed) - len(known)))])
    is_range = seeds == list(range(len(seeds)))
    more = f"seed=range({len(seeds)})" if is_range else f"seed={','.join(map(str, seeds))}"
    if sweep:
        same = without("sweep.name=", "sweep.dry_run=", "seed=")
        return shlex.join([*train, "-m", *same, more, f"sweep.name={sweep.name}"])
    values = [tokens(term) for term in terms]
    if any(len(value) > 1 or value[0][1] == "–" for value in values):
        return ""  # which of several settings to sweep is for the user to choose
    return shlex.join([*train, "-m", *kept, f"{values[0][0][0]}={','.join(v[0][1] for v in values)}", more])
