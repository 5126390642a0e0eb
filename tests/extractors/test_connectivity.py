"""Functional connectivity against numpy's definitions, with windows, gaps and parcels that do not vary."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from neurokern.extractors import functional_connectivity  # noqa: E402


def signals(shape=(3, 40, 6), seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape) @ rng.normal(size=(shape[-1], shape[-1])) + 500


def test_correlation_and_covariance_are_numpys():
    x = signals()
    for window, r, c in zip(
        x, functional_connectivity(x), functional_connectivity(x, kind="covariance"), strict=True
    ):
        np.testing.assert_allclose(r, np.corrcoef(window.T), atol=1e-12)
        np.testing.assert_allclose(c, np.cov(window.T), rtol=1e-10)


@pytest.mark.parametrize("shrinkage", [0.0, 0.3])
def test_partial_correlation_is_the_scaled_inverse(shrinkage):
    x = signals()
    found = functional_connectivity(x, kind="partial correlation", shrinkage=shrinkage)
    for window, partial in zip(x, found, strict=True):
        cov = np.cov(window.T)
        cov = (1 - shrinkage) * cov + shrinkage * np.trace(cov) / 6 * np.eye(6)
        precision = np.linalg.inv(cov)
        scale = np.sqrt(np.diag(precision))
        expected = -precision / scale / scale[:, None]
        np.fill_diagonal(expected, 1)
        np.testing.assert_allclose(partial, expected, atol=1e-9)


def test_volumes_that_are_not_valid_do_not_count():
    x = signals()
    valid = np.random.default_rng(1).random(x.shape[:2]) < 0.7
    broken = np.where(valid[..., None], x, np.nan)
    for kind in ("correlation", "partial correlation"):
        found = functional_connectivity(broken, valid, kind=kind)
        for k in range(3):
            alone = functional_connectivity(x[k][valid[k]], kind=kind)
            np.testing.assert_allclose(found[k], alone, atol=1e-12)


def test_the_triangle_and_fisher_z():
    x = torch.from_numpy(signals((2, 3, 30, 5))).float()
    flat = functional_connectivity(x, fisher_z=True, flatten=True)
    assert flat.shape == (2, 3, 10)
    assert flat.dtype == torch.float32
    rows, columns = np.triu_indices(5, 1)
    expected = np.arctanh(np.corrcoef(x[1, 2].double().T)[rows, columns])
    np.testing.assert_allclose(flat[1, 2], expected, rtol=1e-5, atol=1e-6)
    assert (functional_connectivity(x, fisher_z=True).diagonal(dim1=-2, dim2=-1) == 0).all()


@pytest.mark.parametrize("kind", ["correlation", "partial correlation"])
def test_a_parcel_that_does_not_vary_is_nan_and_spoils_no_other(kind):
    x = signals((1, 40, 5))
    x[..., 2] = 0.1
    found = functional_connectivity(x, kind=kind)[0]
    assert np.isnan(found[2]).all()
    assert np.isnan(found[:, 2]).all()
    others = [0, 1, 3, 4]
    alone = functional_connectivity(x[..., others], kind=kind)[0]
    np.testing.assert_allclose(found[np.ix_(others, others)], alone, atol=1e-12)


def test_large_means_cost_no_digits():
    x = signals((1, 200, 4))
    np.testing.assert_allclose(
        functional_connectivity((x + 1e7).astype(np.float64)), functional_connectivity(x), atol=1e-7
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"signals": np.zeros(5)}, "signals must be float"),
        ({"signals": np.zeros((5, 2), int)}, "signals must be float"),
        ({"kind": "mutual"}, "kind must be one of"),
        ({"valid": np.ones((3, 39), bool)}, "valid must be bool"),
        ({"valid": np.zeros((3, 40), bool)}, "at least 2 valid volumes, got 0"),
        ({"signals": np.ones((1, 1, 2))}, "at least 2 valid volumes, got 1"),
        (
            {"signals": signals((1, 5, 6)), "kind": "partial correlation"},
            "6 parcels need more .* got 5; set shrinkage",
        ),
        ({"fisher_z": True, "kind": "covariance"}, "fisher_z is of correlations"),
        ({"shrinkage": 1.5}, "shrinkage"),
    ],
)
def test_what_cannot_be_computed_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        functional_connectivity(**{"signals": signals(), **arguments})


def test_collinear_parcels_need_shrinkage():
    x = signals((1, 40, 3))
    x = np.concatenate([x, x[..., :1]], axis=-1)
    with pytest.raises(ValueError, match="sums of others; set shrinkage"):
        functional_connectivity(x, kind="partial correlation")
    assert np.isfinite(functional_connectivity(x, kind="partial correlation", shrinkage=0.1)).all()
