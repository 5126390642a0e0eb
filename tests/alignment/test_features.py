"""Features are what the layers put out, sample by sample, and the module stays as it was."""

import pytest
import torch
from torch import nn

from neurokern.alignment import features as features_module
from neurokern.alignment import layer_features, layer_names


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(3 * 6 * 6, 4)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        return self.head(self.body(x).flatten(1))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


IMAGES = torch.randn(7, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def test_patterns_find_leaves_and_full_names_find_any(net):
    assert layer_names(net, "body.*") == ["body.0", "body.1", "body.2"]
    assert layer_names(net, ["head", "body"]) == ["body", "head"]
    assert layer_names(net, ["head", ""]) == ["", "head"]
    torch.testing.assert_close(layer_features(net, IMAGES, "")[""], net.eval()(IMAGES))
    assert layer_names(net) == ["body.0", "body.1", "body.2", "head", "unused"]
    with pytest.raises(ValueError, match=r"got 'conv\*'; it has body, body\.0"):
        layer_names(net, "conv*")
    with pytest.raises(ValueError, match=r"got 'boddy\.1'; it has body\.1, body"):  # those that are near
        layer_names(net, "boddy.1")


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_features_are_the_outputs_of_the_layers_for_every_batch_size(net, batch_size):
    found = layer_features(net, IMAGES, ["body.0", "body", "head"], batch_size=batch_size)
    net.eval()
    assert list(found) == ["body", "body.0", "head"]
    torch.testing.assert_close(found["body.0"], net.body[0](IMAGES).flatten(1))
    torch.testing.assert_close(found["body"], net.body(IMAGES).flatten(1))
    torch.testing.assert_close(found["head"], net(IMAGES))


def test_the_module_stays_as_it_was(net):
    net.train()
    net.body.eval()
    layer_features(net, IMAGES, "head")
    assert net.training
    assert not net.body.training
    assert not any(part._forward_hooks for part in net.modules())
    with pytest.raises(ValueError, match="did not run"):
        layer_features(net, IMAGES, "unused")
    assert net.training
    assert not any(part._forward_hooks for part in net.modules())


def test_features_can_be_trained_on_and_hold_no_graph(net):
    found = layer_features(net, IMAGES, "head")["head"]
    assert not found.requires_grad
    nn.Linear(4, 1)(found).sum().backward()


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        ("mean", lambda x: x.mean((2, 3))),
        ("max", lambda x: x.amax((2, 3))),
        ("none", lambda x: x),
        (lambda x: x[:, :, 0, 0], lambda x: x[:, :, 0, 0]),
    ],
)
def test_images_are_pooled_over_space(net, pool, expected):
    found = layer_features(net, IMAGES, "body.0", pool=pool, batch_size=2)["body.0"]
    torch.testing.assert_close(found, expected(net.body[0](IMAGES)).detach())


def test_sequences_are_pooled_over_tokens():
    layer = nn.Sequential(nn.Linear(4, 5))
    tokens = torch.randn(6, 3, 4)
    expected = layer(tokens).detach()
    for pool, value in {"mean": expected.mean(1), "max": expected.amax(1), "last": expected[:, -1]}.items():
        torch.testing.assert_close(layer_features(layer, tokens, pool=pool)["0"], value)


def test_loaders_mappings_arrays_and_own_calls_are_inputs(net):
    expected = layer_features(net, IMAGES, "head")["head"]
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(IMAGES, torch.arange(7)), batch_size=4
    )
    given = [loader, IMAGES.numpy(), [{"x": part} for part in IMAGES.split(2)]]
    for inputs in given:
        torch.testing.assert_close(layer_features(net, inputs, "head")["head"], expected)
    doubled = layer_features(net, IMAGES, "head", forward=lambda module, x: module(2 * x))["head"]
    torch.testing.assert_close(doubled, layer_features(net, 2 * IMAGES, "head")["head"])


def test_layers_of_mtm_come_from_its_own_call():
    from neurokern.models import MtM, MtMConfig

    sizes = {"n_bins": 6, "hidden_size": 8, "n_layers": 2, "n_heads": 2, "mlp_size": 8, "stitch_size": 4}
    model = MtM(MtMConfig.paper(**sizes, embed_size=None))
    model.add_session("monday", 5)
    counts = torch.ones(4, 6, 5)
    found = layer_features(
        model, counts, ["layers.0", "norm"], pool="mean", forward=lambda m, x: m(x, "monday", "causal")
    )
    assert {name: tuple(values.shape) for name, values in found.items()} == {
        "layers.0": (4, 8),
        "norm": (4, 8),
    }


def test_half_precision_comes_back_in_float32():
    layer = nn.Sequential(nn.Linear(4, 5)).to(torch.bfloat16)
    assert layer_features(layer, torch.ones(3, 4, dtype=torch.bfloat16))["0"].dtype == torch.float32


def test_bad_input_is_an_error_that_says_what_to_do(net, monkeypatch):
    with pytest.raises(ValueError, match="at least one sample"):
        layer_features(net, IMAGES[:0], "head")
    with pytest.raises(ValueError, match="pool must be one of 'flatten'"):
        layer_features(net, IMAGES, "head", pool="average")
    with pytest.raises(ValueError, match="pool must keep axis 0, the 7 samples, of layer 'head'"):
        layer_features(net, IMAGES, "head", pool=lambda x: x.mean(0))
    with pytest.raises(ValueError, match=r"gave \(12,\) features after \(24,\)"):
        layer_features(nn.Sequential(nn.Conv1d(1, 3, 1)), [torch.ones(2, 1, 8), torch.ones(2, 1, 4)])
    with pytest.raises(ValueError, match="one row for each of 2 samples"):
        layer_features(nn.Sequential(nn.Flatten(0)), torch.ones(2, 3))
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module, got int"):
        layer_features(3, IMAGES)
    with pytest.raises(ValueError, match="layers must name at least one"):
        layer_features(net, IMAGES, [])
    with pytest.raises(ValueError, match="got a single number"):
        layer_features(net, torch.tensor(1.0), "head")
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        layer_features(net, IMAGES, "head", batch_size=0)
    monkeypatch.setattr(features_module, "check_memory", lambda *arguments: sizes.append(arguments[2]))
    sizes: list[float] = []
    layer_features(net, IMAGES, ["body.0", "head"], batch_size=3)
    assert sizes == [pytest.approx(7 * 4 * (2 * 108 + 4))]
