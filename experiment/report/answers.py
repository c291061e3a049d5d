"""What the statistics answer to the questions: verdicts, winners, and what to run next."""

import math
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

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
        text = mean + interval + units.unit(claim.metric, is_effect=not claim.is_ratio)
        if claim.claimed and not math.isnan(found.low):
            where = "larger than" if found.high < least else "smaller than" if found.low > most else "inside"
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
        listed = ", ".join(f"{k} of {n} runs of {setting}" for setting, (k, n) in contrast.failed.items())
        return f"no verdict: {listed} failed, and those that are left are survivors"
    if contrast.along:
        named = dict.fromkeys(token.partition("=")[0] for term in contrast.terms for token in term.split())
        return f"no verdict: these settings change together: {', '.join([*named, *contrast.along])}"
    if found.n == 0:
        return "undecided: no seed has a finished run of every setting"
    if claim.metric in EXACT and not found.sd > 0:
        return (good if found.mean > 0 else bad) if found.mean else "undecided: no difference"
    if found.n == 1:
        return "undecided: one seed gives no interval, at least 1 more seed needed"
    if found.sd == 0:
        how = "differ by the same amount, there is no spread to test against" if found.mean else "are equal"
        return f"undecided: all {found.n} seeds {how}"
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
        return f"equivalent: within {sign}{half}{units.unit(claim.metric, is_effect=not claim.is_ratio)}"
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


def _winner(given: Answer) -> str:
    """Which setting is best, by how much and how sure."""
    question, leader = given.question, given.question.leader
    if failed := [finding.verdict for contrast, finding in given.parts if contrast.failed]:
        return failed[0]
    led = [
        (next(setting for setting in contrast.terms if setting != leader), finding)
        for contrast, finding in given.parts
        if contrast.terms.get(leader) == 1 and finding.found.n
    ]
    if not led:
        return "undecided: no seed has a finished run of two settings"
    sign = row(given.claim.metric).sign
    led.sort(key=lambda item: sign * item[1].found.mean)
    beaten = [other for other, f in led if f.is_significant and sign * f.found.mean > 0]
    (runner_up, closest), together = led[0], ""
    if len(question.changed) > 1:
        listed = ", ".join(question.changed)
        together = f"these settings change together ({listed}), no verdict on one of them: "
    by = given.effect(closest)
    if len(beaten) == len(led):
        rest = " and all others" * (len(led) > 1)
        return f"decided: {together}{leader} beats {runner_up}{rest}: {by}, p = {closest.p:.2g} corrected"
    rivals = ", ".join(other for other, _ in led if other not in beaten)
    if all(f.verdict.startswith("equivalent") for other, f in led if other not in beaten):
        text = f"equivalent: {together}{leader} and {rivals}, {by}"
    else:
        how_sure = (
            f"by {by} over {runner_up}, but chance may do that"
            if closest.found.n > 1
            else f"by {by}, in one seed"
        )
        text = f"undecided: {together}{leader} leads {rivals}, {how_sure}"
    return f"{text}; both beat {', '.join(beaten)}" if beaten else text


def next_step(given: Answer, runs: Collection, tests: int) -> str:
    """The command that would tell more, or that trains with the winner; empty where there is none."""
    question, sweep = given.question, given.question.sweep
    if sweep is None and len(runs.sweeps) == 1 and not runs.loose:
        sweep = runs.sweeps[0]
    started = (
        sweep.sessions[-1].get("command", "") if sweep and sweep.sessions else question.contrasts[0].command
    )
    words = [word for word in shlex.split(str(started))[1:] if word not in ("-m", "--multirun")]
    if not words:
        return ""
    replaced = ("sweep.", "seed=", "name=", *(f"{key}=" for key in question.changed))
    kept = [word for word in words[1:] if not word.startswith(replaced)]
    if given.verdict.startswith("decided") and question.leader:
        return shlex.join(["python", words[0], *kept, *question.leader.split()])
    if not given.verdict.startswith(("undecided", "no verdict")) or any(c.folds for c in question.contrasts):
        return ""
    open_ = [
        f for f in given.findings if f.verdict.startswith("undecided") and f.found.n > 1 and f.found.sd > 0
    ]
    seeds = max((f.found.n + _more_seeds(given.claim, f.found, tests) for f in open_), default=5.0)
    more = [f"seed=range({min(seeds, MANY):.0f})"]
    if sweep:
        same = [w for w in words[1:] if not w.startswith(("sweep.name=", "sweep.dry_run=", "seed="))]
        again = [] if given.verdict.startswith("no verdict") else more
        return shlex.join(["python", words[0], "-m", *same, *again, f"sweep.name={sweep.name}"])
    if len(question.changed) != 1:
        return ""  # which of several settings to sweep is for the user to choose
    (key,) = question.changed
    values = dict.fromkeys(term.partition("=")[2] for c in question.contrasts for term in c.terms)
    if "–" in values:  # some runs do not have the key
        return ""
    return shlex.join(["python", words[0], "-m", *kept, f"{key}={','.join(values)}", *more])
