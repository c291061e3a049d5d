"""The numbers behind the verdicts are those of the literature, and as often right as they say."""

import math

import numpy as np
import pytest
from scipy.stats import permutation_test, ttest_rel
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from experiment.report.sequential import FIRST_LOOK, look_levels
from experiment.report.statistics import (
    LEVEL,
    corrected,
    estimate,
    estimate_over_folds,
    pairs_needed,
    sign_flips,
)

rng = np.random.default_rng(0)
A, B = [0.91, 0.93, 0.92, 0.95], [0.90, 0.90, 0.93, 0.91]


def differences(a, b):
    return [x - y for x, y in zip(a, b, strict=True)]


def test_the_interval_and_p_are_those_of_the_paired_t_test():
    known = ttest_rel(A, B)
    interval = known.confidence_interval(0.95)
    found = estimate(differences(A, B), 0.95)
    assert found.p == pytest.approx(known.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize("delta", [0.001, 0.02, 0.05])
@pytest.mark.parametrize("shift", [-0.01, 0.0, 0.015])
def test_equivalence_is_statsmodels_two_one_sided_tests(delta, shift):
    a = np.random.default_rng(1).normal(0.6, 0.01, 8)
    b = a - shift + np.random.default_rng(2).normal(0, 0.005, 8)
    p, *_ = ttost_paired(a, b, -delta, delta)
    assert estimate(list(a - b), 0.6).p_equivalent(delta) == pytest.approx(p)


def test_sign_flips_are_scipys_permutation_test():
    values = differences(A, B)
    known = permutation_test((np.array(values),), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flips(values) == pytest.approx(known.pvalue)
    assert sign_flips([0.1, 0.2, 0.3, 0.1, 0.2]) == 2 / 2**5
    assert 0 < sign_flips([1.0] * 20) < 0.001


@pytest.mark.parametrize("values", [[], [0.1]])
def test_less_than_two_values_give_no_interval(values):
    found = estimate(values)
    assert found.n == len(values)
    assert all(
        math.isnan(number) for number in (found.sd, found.low, found.high, found.p, found.p_below(1.0))
    )


def test_differences_that_float32_cannot_tell_apart_have_no_spread():
    found = estimate([0.1, 0.1 + 3e-8, 0.1 - 3e-8], 0.9)
    assert found.sd == 0
    assert math.isnan(found.p)
    assert estimate([1e-8, -1e-8], 0.9).mean == 0


def test_one_hypothesis_a_contrast_is_holms_correction():
    ps = [0.03, 0.01, 0.04, 0.02, 0.9]
    _, known, *_ = multipletests(ps, method="holm")
    assert corrected(list(enumerate(ps))) == pytest.approx(known)
    with_gap = corrected([(0, 0.03), (1, math.nan), (2, 0.01)])
    assert math.isnan(with_gap[1])
    assert with_gap[0::2] == pytest.approx([0.03, 0.02])


def test_of_the_hypotheses_about_one_contrast_one_counts():
    # two contrasts with two hypotheses each: the factor is 2 until both of the first are rejected, then 1
    assert corrected([("a", 0.01), ("a", 0.02), ("b", 0.03), ("b", 0.5)]) == pytest.approx(
        [0.02, 0.04, 0.04, 0.5]
    )


def test_correction_keeps_the_promise_where_all_claims_are_void():
    draws = np.random.default_rng(3).normal(size=(1000, 6, 5))
    false = 0
    for claims in draws:
        found = [estimate(list(values)) for values in claims]
        tests = [(i, p) for i, f in enumerate(found) for p in (f.p, f.p_equivalent(0.0001))]
        false += min(corrected(tests)) < LEVEL
    assert false / len(draws) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / len(draws))


def test_the_number_of_pairs_is_the_known_one():
    assert math.ceil(pairs_needed(1.0, 1.0, 1)) == 10  # Cohen's d = 1, 80 % power: n = 10
    assert math.ceil(pairs_needed(0.5, 1.0, 1)) == 34
    assert pairs_needed(0.5, 1.0, 10) > pairs_needed(0.5, 1.0, 1)


def accuracies_of_folds(rng: np.random.Generator, n: int, folds: int) -> list[tuple[float, float]]:
    """Two learners, equally good by their make: nearest centroids of one half of the features each."""
    labels = np.arange(n) % 2
    features = rng.normal(size=(n, 2, 10)) + 0.3 * labels[:, None, None]
    order = rng.permutation(n)
    found = []
    for held_out in np.array_split(order, folds):
        kept = np.setdiff1d(order, held_out)
        centroids = np.stack([features[kept][labels[kept] == c].mean(axis=0) for c in (0, 1)])
        distances = ((features[held_out, None] - centroids) ** 2).sum(axis=-1)
        right = distances.argmin(axis=1) == labels[held_out, None]
        found.append(tuple(right.mean(axis=0)))
    return found


def test_overlapping_training_sets_give_no_false_verdicts():
    """600 data sets, five folds, two equally good learners: an uncorrected t-test is wrong too often."""
    draws, wrong, corrected_wrong = 600, 0, 0
    rng = np.random.default_rng(7)
    for _ in range(draws):
        values = {("0", str(k)): a - b for k, (a, b) in enumerate(accuracies_of_folds(rng, 60, 5))}
        wrong += estimate(list(values.values()), 1.0).p < LEVEL
        corrected_wrong += estimate_over_folds(values, 5, 1.0).p < LEVEL
    assert corrected_wrong / draws < 0.05 + 2 * math.sqrt(0.05 * 0.95 / draws)
    assert wrong > 1.3 * 0.05 * draws


# looking after each seed


def looks(values: np.ndarray, max_seeds: int, level: float) -> np.ndarray:
    """Of rows of values, which are found at one of the looks."""
    levels = look_levels(max_seeds, level)
    found = np.zeros(len(values), dtype=bool)
    for n, of_look in levels.items():
        found |= np.array([estimate(list(row[:n])).p < of_look for row in values])
    return found


def test_looking_after_each_seed_finds_nothing_in_nothing():
    """2,000 data sets without effect: 5 % false verdicts at most, where peeking at p < 0.05 gives 15 %."""
    values = np.random.default_rng(4).normal(size=(2000, 10))
    honest = looks(values, 10, LEVEL).mean()
    peeking = np.mean([any(estimate(list(v[:n])).p < LEVEL for n in range(2, 11)) for v in values[:500]])
    assert honest <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 2000)
    assert peeking > 0.12


@pytest.mark.parametrize("level", [0.05, 0.05 / 6])
def test_the_level_is_spent_and_no_more_whatever_the_share(level):
    paths = 40_000
    values = np.random.default_rng(5).normal(size=(paths, 8))
    crossed = np.zeros(paths, dtype=bool)
    for n, of_look in look_levels(8, level).items():
        t = values[:, :n].mean(axis=1) / values[:, :n].std(axis=1, ddof=1) * math.sqrt(n)
        from scipy.stats import t as student

        crossed |= 2 * student.sf(np.abs(t), n - 1) < of_look
    assert crossed.mean() == pytest.approx(level, abs=3 * math.sqrt(level / paths))


def test_the_power_is_nearly_that_of_one_look_at_the_end():
    values = np.random.default_rng(6).normal(1.3, 1.0, size=(400, 10))
    sequential = looks(values, 10, LEVEL).mean()
    fixed = np.mean([estimate(list(row)).p < LEVEL for row in values])
    assert sequential > fixed - 0.05


def test_there_is_no_look_before_the_third_seed():
    assert min(look_levels(10, 0.05)) == FIRST_LOOK
    with pytest.raises(ValueError, match="3 at least"):
        look_levels(2, 0.05)
