"""Codes: the nearest of all, found again by k-means, stored with a model."""

from __future__ import annotations

import pytest
import torch

from neurokern.models import Codebook, codebook


def blobs(n_each: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(8, 5, generator=generator) * 10
    return centers, centers.repeat_interleave(n_each, 0) + torch.randn(
        8 * n_each, 5, generator=generator
    ) * 0.1


def test_numbers_are_those_of_the_nearest_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    codes, vectors = torch.randn(7, 3, generator=generator), torch.randn(4, 9, 3, generator=generator)
    expected = (vectors[..., None, :] - codes).square().sum(-1).argmin(-1)
    book = Codebook(codes)
    assert torch.equal(book(vectors), expected)
    monkeypatch.setattr(codebook, "DISTANCES", 14)  # two vectors at a time
    assert torch.equal(book(vectors), expected)
    assert torch.equal(book.decode(expected), codes[expected])
    assert torch.equal(book(book.decode(expected)), expected)


def test_k_means_finds_separate_clusters_again() -> None:
    centers, vectors = blobs()
    book = Codebook.fit(vectors.view(16, 20, 5), 8, seed=3)
    numbers = book(vectors).view(8, 40)
    assert (numbers == numbers[:, :1]).all()
    assert len(set(numbers[:, 0].tolist())) == 8
    torch.testing.assert_close(book.codes[numbers[:, 0]], centers, rtol=0, atol=0.1)


def test_one_seed_gives_one_codebook() -> None:
    vectors = torch.randn(3000, 4, generator=torch.Generator().manual_seed(2))
    first, again, other = (Codebook.fit(vectors, 16, seed=seed).codes for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_every_code_is_that_of_some_vector() -> None:
    vectors = torch.randn(200, 2, generator=torch.Generator().manual_seed(4))
    book = Codebook.fit(vectors, 50, seed=0)
    assert len(book(vectors).unique()) == 50
    exact = Codebook.fit(vectors[:10], 10, seed=0)
    assert torch.equal(exact.decode(exact(vectors[:10])), vectors[:10])


def test_codes_without_vectors_move_to_the_farthest() -> None:
    points = torch.tensor([[0.0], [1.0], [10.0]])
    moved = codebook._means(points, torch.tensor([0, 0, 0]), torch.tensor([[0.0], [99.0]]))
    torch.testing.assert_close(moved, torch.tensor([[11 / 3], [10.0]]))


def test_codes_are_stored_and_never_trained() -> None:
    book = Codebook(torch.ones(2, 3))
    assert list(book.parameters()) == []
    other = Codebook(torch.zeros(2, 3))
    other.load_state_dict(book.state_dict())
    assert torch.equal(other.codes, book.codes)


def test_wrong_arguments_are_named() -> None:
    for vectors, n_codes, message in (
        (torch.zeros(5, 2), 2, "at least n_codes=2 different ones, got 1"),
        (torch.zeros(0, 2), 1, "different ones, got 0"),
        (torch.randn(5, 2), 0, "n_codes must be at least 1"),
        (torch.full((5, 2), torch.nan), 2, "must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            Codebook.fit(vectors, n_codes, seed=0)
    for codes in (torch.zeros(3), torch.zeros(0, 2), torch.zeros(2, 2, dtype=torch.int64)):
        with pytest.raises(ValueError, match="codes must be floating point"):
            Codebook(codes)
    with pytest.raises(ValueError, match=r"shape \(\.\.\., 3\), got \(4, 2\)"):
        Codebook(torch.ones(2, 3))(torch.ones(4, 2))
