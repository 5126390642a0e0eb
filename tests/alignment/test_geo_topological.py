"""Geo-topological and geodesic RDMs are those of their definitions."""

import numpy as np
import pytest
from scipy.sparse.csgraph import shortest_path
from scipy.stats import rankdata

from neurokern.alignment import compare_rdms, compute_rdm, geo_topological, geodesic_rdm, square_rdm


def rdms(seed=0, n_conditions=9):
    return compute_rdm(np.random.default_rng(seed).normal(size=(3, n_conditions, 4)), "euclidean")


def unit_ranks(values):
    ranks = rankdata(values)
    return (ranks - ranks.min()) / (ranks.max() - ranks.min())


@pytest.mark.parametrize(("lower", "upper"), [(0.2, 0.8), (0.0, 1.0), (0.35, 0.4)])
def test_ranks_are_flattened_below_and_above_their_quantiles(lower, upper):
    values = rdms()
    for rdm, result in zip(values, geo_topological(values, lower, upper), strict=True):
        ranks = unit_ranks(rdm)
        low, high = np.quantile(ranks, [lower, upper])
        np.testing.assert_allclose(result, np.clip((ranks - low) / (high - low), 0, 1), atol=1e-12)


def test_equal_thresholds_make_an_adjacency_matrix():
    result = geo_topological(rdms(), 0.5, 0.5)
    assert set(np.unique(result)) == {0.0, 1.0}
    assert abs(result.mean() - 0.5) < 0.05


def test_only_the_order_of_dissimilarities_counts():
    np.testing.assert_allclose(geo_topological(rdms()), geo_topological(np.exp(3 * rdms())))


def test_an_rdm_that_never_varies_gives_zeros():
    assert (geo_topological(np.ones(10)) == 0).all()
    assert np.isfinite(geodesic_rdm(np.ones(10))).all()


@pytest.mark.parametrize("options", [{"keep": 0.3}, {"keep": 0.8}, {"neighbors": 2}])
def test_geodesics_are_the_shortest_paths_of_the_graph(options):
    values = rdms()
    for rdm, result in zip(values, geodesic_rdm(values, ranked=False, **options), strict=True):
        ranks = square_rdm(unit_ranks(rdm))
        if "keep" in options:
            edges = ranks <= np.quantile(unit_ranks(rdm), options["keep"])
        else:
            nearest = np.argsort(ranks + 9 * np.eye(len(ranks)), axis=1)[:, : options["neighbors"]]
            edges = np.zeros(ranks.shape, dtype=bool)
            np.put_along_axis(edges, nearest, True, axis=1)
            edges |= edges.T
        graph = np.where(edges, ranks + 1e-7, 0)  # scipy takes 0 for no edge; one has rank 0
        expected = shortest_path(graph, directed=False)[np.triu_indices(len(ranks), 1)]
        np.testing.assert_allclose(result, expected, atol=1e-5)


def test_conditions_without_a_path_share_the_largest_rank():
    apart = np.concatenate([np.zeros((3, 2)) + np.eye(3, 2) * 0.1, 50 + np.eye(3, 2) * 0.1])
    rdm = compute_rdm(apart, "euclidean")
    lengths, ranks = geodesic_rdm(rdm, keep=0.3, ranked=False), geodesic_rdm(rdm, keep=0.3)
    assert np.isinf(lengths).sum() == 9
    assert (ranks[np.isinf(lengths)] == 1).all()


def test_noise_in_the_extremes_is_forgiven():
    rdm = rdms(n_conditions=20)[0]
    order = np.argsort(rdm)
    shaken = rdm.copy()
    shaken[order[:30]] = rdm[order[:30]][::-1]  # the smallest 16 % change places
    plain = compare_rdms(rdm, shaken, "spearman")
    assert compare_rdms(geo_topological(rdm), geo_topological(shaken), "spearman") == pytest.approx(1)
    assert plain < 0.995


def test_bad_thresholds_and_rdms_are_errors():
    with pytest.raises(ValueError, match="lower must not lie above upper"):
        geo_topological(rdms(), 0.8, 0.2)
    with pytest.raises(ValueError, match=r"upper must lie in \[0, 1\]"):
        geo_topological(rdms(), 0.2, 1.8)
    with pytest.raises(ValueError, match="NaN or infinity"):
        geo_topological(np.array([1.0, np.nan, 2.0]))
    with pytest.raises(ValueError, match=r"neighbors must lie within \[1, 9\)"):
        geodesic_rdm(rdms(), neighbors=9)
