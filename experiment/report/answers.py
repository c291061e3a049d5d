"""What the statistics answer to the questions: verdicts, winners, and what to run next."""

import math
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from experiment.metrics import row, units
from experiment.report.questions import Claim, Contrast, Question
from experiment.report.runs import Collection
from experiment.report.sequential import look_levels
from experiment.report.statistics import LEVEL, Estimate, corrected, estimate, pairs_needed

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
    "measured": "neutral", "decided": "good",
}  # fmt: skip
"""First words of a verdict, and what they mean for the claim."""


@dataclass
class Answer:
    """A question with what was found: a finding for each contrast, the verdict and the next command.

    ``leader`` is the best setting of a comparison so far.
    """

    question: Question
    findings: list[Finding]
    verdict: str = ""
    leader: str = ""
    next_step: str = ""

    @property
    def claim(self) -> Claim:
        """What is claimed or asked."""
        return self.question.claim

    @property
    def kind(self) -> str:
        """``good``, ``bad``, ``neutral`` or ``open``."""
        return VERDICTS[re.split("[:,]| \\(", self.verdict)[0]]

    @property
    def claimed(self) -> tuple[float, float] | None:
        """The claimed size, from–to, as an effect is measured."""
        return _claimed(self.claim) if self.claim.claimed else None

    @property
    def measured(self) -> str:
        """The number of a benchmark beside the claimed one."""
        value = self.question.measured
        assert value is not None
        return self.effect(Finding(Estimate(1, value, low=value, high=value)))

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
        numbers = (found.mean, found.low, found.high, *_claimed(claim))
        mean, low, high, *sizes = (units.effect(claim.metric, claim.is_ratio, number) for number in numbers)
        text = mean + (f" ({low} to {high})" if found.low < found.high else "")
        text += units.unit(claim.metric, is_effect=not claim.is_ratio)
        if claim.claimed and not math.isnan(found.low):
            least, most = _claimed(claim)
            where = "larger than" if found.high < least else "smaller than" if found.low > most else "inside"
            what = "interval" if found.low < found.high else "measured value"
            text += f". The claimed {' to '.join(dict.fromkeys(sizes))} is {where} the {what}"
        return text


def answer(asked: Sequence[Question], runs: Collection, delta: float | None = None) -> list[Answer]:
    """The answers to questions that are told together: their tests are corrected together.

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
        for place, (finding, contrast) in enumerate(
            zip(given.findings, given.question.contrasts, strict=True)
        ):
            if contrast.failed or contrast.along:
                continue  # no verdict is asked of it, so that it costs the others nothing
            for name, p in _tests(given.claim, finding, delta).items():
                if given.question.sweep and given.question.sweep.max_seeds:
                    setattr(finding, name, p)  # has its share of the level, see sequential
                else:
                    tests.append(((number, place), p))
                    places.append((finding, name))
    for (finding, name), p in zip(places, corrected(tests), strict=True):
        setattr(finding, name, p)
    number_of_tests = len({place for place, p in tests if not math.isnan(p)})
    for given in answers:
        for finding, contrast in zip(given.findings, given.question.contrasts, strict=True):
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
    values = list(contrast.seeds.values())
    size = 1.0 if question.claim.is_ratio else contrast.size
    sweep = question.sweep
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
    if claim.claimed and not claim.is_benchmark:
        least, most = _claimed(claim)
        one_sided = (
            found.p_below(least) if found.mean < least else found.p_above(most) if found.mean > most else 1.0
        )
        tests["p_size"] = min(1.0, 2 * one_sided)
    if (half := equivalence(claim, delta)) is not None:
        # a look's interval is two-sided: both one-sided tests at half its level
        tests["p_equivalent"] = found.p_equivalent(half) * (1 if finding.level == LEVEL else 2)
    return tests


def _claimed(claim: Claim) -> tuple[float, float]:
    """The claimed size, from–to, as the effect is measured; NaN, beyond which nothing lies, for none."""
    least, most = claim.claimed or (math.nan, math.nan)
    return (math.log(least), math.log(most)) if claim.is_ratio else (least, most)


def equivalence(claim: Claim, delta: float | None) -> float | None:
    """Half the width of the region in which an effect counts as none: the claim's, its size, or ``delta``."""
    if claim.delta is not None:
        return math.log1p(claim.delta) if claim.is_ratio else claim.delta
    if claim.claimed:
        return min(map(abs, _claimed(claim)))
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
        named = ", ".join(
            dict.fromkeys(token.partition("=")[0] for term in contrast.terms for token in term.split())
        )
        return f"no verdict: these settings change together: {named}, {', '.join(contrast.along)}"
    if found.n == 0:
        return "undecided: no seed has a finished run of every setting"
    if claim.metric in EXACT and not found.sd > 0:
        return (good if found.mean > 0 else bad) if found.mean else "undecided: no difference"
    if found.n == 1:
        return "undecided: one seed gives no interval, at least 1 more seed needed"
    if found.sd == 0:
        how = "differ by the same amount, there is no spread to test against" if found.mean else "are equal"
        return f"undecided: all {found.n} seeds {how}"
    least, most = _claimed(claim)
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
        return (
            f"undecided: {left} more seeds until sweep.max_seeds"
            if left > 0
            else "undecided: sweep.max_seeds reached"
        )
    if found.mean < 0 and good == "held" and not claim.claimed:
        return "undecided: so far the mean goes the other way"
    more = _more_seeds(claim, found, tests)
    if more > MANY:
        return f"undecided: more than {MANY} more seeds needed"
    return f"undecided: about {more:.0f} more seed{'s' * (more > 1)} needed"


def _more_seeds(claim: Claim, found: Estimate, tests: int) -> float:
    """Further seeds until the effect or the claimed size can be told, should mean and spread stay."""
    least, _ = _claimed(claim)
    distances = [found.mean, found.mean - least] if claim.claimed and found.mean < least else [found.mean]
    return max(
        1.0, math.ceil(min(1e9, *(pairs_needed(d, found.sd, max(tests, 1)) for d in distances)) - found.n)
    )


def _of_claim(given: Answer) -> str:
    """A claim holds if all its contrasts do, and is contradicted if one is."""
    if given.claim.is_benchmark:
        return "measured"
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
    question = given.question
    together = ""
    if len(question.changed) > 1:
        together = (
            f"these settings change together ({', '.join(question.changed)}), no verdict on one of them: "
        )
    if any(contrast.failed for contrast in question.contrasts):
        return next(f.verdict for f, c in zip(given.findings, question.contrasts, strict=True) if c.failed)
    total: dict[str, list[float]] = {}
    for contrast in question.contrasts:
        for setting, cell in contrast.cells.items():
            total.setdefault(setting, []).extend(cell[pair] for pair in contrast.values)
    means = {setting: math.fsum(values) / len(values) for setting, values in total.items() if values}
    if not means:
        return "undecided: no seed has a finished run of two settings"
    better = row(given.claim.metric).sign
    best = given.leader = max(means, key=lambda setting: better * means[setting])
    told: list[tuple[str, Finding, float]] = []
    for finding, contrast in zip(given.findings, question.contrasts, strict=True):
        if best in contrast.terms and finding.found.n:
            (other,) = set(contrast.terms) - {best}
            told.append((other, finding, contrast.terms[best]))
    told.sort(key=lambda item: -better * means.get(item[0], -better * math.inf))
    if not told:
        return "undecided: no seed has a finished run of two settings"
    runner_up, finding, sign = told[0]
    by = _signed(given.claim, finding.found, sign)
    beaten = [other for other, f, s in told if f.is_significant and better * s * f.found.mean > 0]
    if len(beaten) == len(told):
        rest = "" if len(told) == 1 else " and all others"
        return f"decided: {together}{best} beats {runner_up}{rest}: {by}, p = {finding.p:.2g} corrected"
    undecided = ", ".join(other for other, *_ in told if other not in beaten)
    text = f"undecided: {together}{best} leads {undecided}, by {by} over {runner_up}, but chance may do that"
    text = (
        text
        if finding.found.n > 1
        else f"undecided: {together}{best} leads {undecided}, by {by}, in one seed"
    )
    if all(f.verdict.startswith("equivalent") for other, f, _ in told if other not in beaten):
        text = f"equivalent: {together}{best} and {undecided}, {by}"
    return f"{text}; both beat {', '.join(beaten)}" if beaten else text


def _signed(claim: Claim, found: Estimate, sign: float) -> str:
    """The effect with its interval, seen from the other side where ``sign`` is negative."""
    numbers = sorted([sign * found.low, sign * found.high]) if not math.isnan(found.low) else []
    mean, *bounds = (
        units.effect(claim.metric, claim.is_ratio, number) for number in (sign * found.mean, *numbers)
    )
    interval = f" ({' to '.join(bounds)})" if bounds else ""
    return f"{mean}{interval}{units.unit(claim.metric, is_effect=True)}"


def next_step(given: Answer, runs: Collection, tests: int) -> str:
    """The command that would tell more, or that trains with the winner; empty where there is none."""
    question = given.question
    sweep = question.sweep
    if given.claim.is_benchmark or not question.contrasts:
        return ""
    if sweep is None and len(runs.sweeps) == 1 and not runs.loose:
        sweep = runs.sweeps[0]
    command = (
        sweep.sessions[-1].get("command", "") if sweep and sweep.sessions else question.contrasts[0].command
    )
    words = shlex.split(str(command))[1:]
    if not words:
        return ""
    replaced = ("sweep.", "seed=", "name=", *(f"{key}=" for key in question.changed))
    if given.verdict.startswith("decided") and given.leader:
        kept = [word for word in words if word not in ("-m", "--multirun") and not word.startswith(replaced)]
        return shlex.join(["python", *kept, *given.leader.split()])
    if not given.verdict.startswith(("undecided", "no verdict")):
        return ""
    open_ = [
        f for f in given.findings if f.verdict.startswith("undecided") and f.found.n > 1 and f.found.sd > 0
    ]
    seeds = max((f.found.n + _more_seeds(given.claim, f.found, tests) for f in open_), default=5.0)
    more = [f"seed=range({min(seeds, MANY):.0f})"]
    if sweep:
        words = [word for word in words if not word.startswith(("sweep.name=", "sweep.dry_run=", "seed="))]
        again = [] if given.verdict.startswith("no verdict") else more
        return shlex.join(["python", *words, *again, f"sweep.name={sweep.name}"])
    if len(question.changed) != 1:
        return ""  # which of several settings to sweep is for the user to choose
    (key,) = question.changed
    values = dict.fromkeys(term.partition("=")[2] for c in question.contrasts for term in c.terms)
    kept = [word for word in words if not word.startswith(replaced) and word != "-m"]
    return shlex.join(["python", kept[0], "-m", *kept[1:], f"{key}={','.join(values)}", *more])
