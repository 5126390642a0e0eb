"""A stream of batches: the same for a seed and epoch, whatever the workers, from any place on."""

import itertools
import json

import numpy as np
import pytest

from neurokern.datasets import BIDSDataset
from neurokern.ops import _array_cache

torch = pytest.importorskip("torch")
nibabel = pytest.importorskip("nibabel")

from torch.utils.data import DataLoader  # noqa: E402

from neurokern.datasets import FMRIStream  # noqa: E402
from neurokern.extractors import FMRIVoxelExtractor  # noqa: E402

SHAPE = (5, 4, 3)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four runs with 5, 4, 3 and 2 windows."""
    root = tmp_path_factory.mktemp("stream")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEUROKERN_CACHE", str(root / "cache"))
        patch.setattr(_array_cache, "_LEAST_FREE", 0)
        folder = root / "ds/sub-1/func"
        folder.mkdir(parents=True)
        (root / "ds/task-rest_bold.json").write_text(json.dumps({"RepetitionTime": 2.0}))
        for run, n in enumerate((15, 12, 10, 7)):
            values = np.random.default_rng(run).normal(1000, 30, (*SHAPE, n)).astype(np.int16)
            image = nibabel.Nifti1Image(values, np.eye(4))
            nibabel.save(image, folder / f"sub-1_task-rest_run-{run}_bold.nii.gz")
        extractor = FMRIVoxelExtractor(np.ones(SHAPE, bool), normalize=True)
        yield BIDSDataset(root / "ds").with_extractor(extractor, length=3)


def keys(batches):
    return [list(zip(batch["run"], batch["start"].tolist(), strict=True)) for batch in batches]


@pytest.mark.parametrize("shuffle", ["runs", "windows", False])
def test_every_window_comes_once_and_the_windows_of_a_run_together(data, shuffle):
    stream = FMRIStream(data, batch_size=4, shuffle=shuffle)
    order = stream.order(0)
    assert sorted(order.tolist()) == list(range(len(data)))
    runs = [data.windows[i].run for i in order]
    assert sum(a != b for a, b in itertools.pairwise(runs)) == 3
    in_time = all(a < b or data.windows[a].run != data.windows[b].run for a, b in itertools.pairwise(order))
    assert in_time == (shuffle != "windows")
    assert (order.tolist() == list(range(len(data)))) == (shuffle is False)
    assert len(list(stream)) == len(stream) == 4


def test_an_epoch_is_a_function_of_seed_and_number(data):
    first = FMRIStream(data, 4, seed=3)
    assert first.order(2).tolist() == FMRIStream(data, 4, seed=3).order(2).tolist()
    others = [first.order(epoch).tolist() for epoch in range(6)]
    assert len({tuple(order) for order in others}) > 1
    assert [FMRIStream(data, 4, seed=s).order(0).tolist() for s in range(6)] != [others[0]] * 6


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on machines with fewer cores
@pytest.mark.parametrize(("workers", "method"), [(2, "fork"), (4, "fork"), (2, "spawn")])
def test_batches_are_the_same_with_any_number_of_workers(data, workers, method):
    stream = FMRIStream(data, batch_size=4, shuffle="windows", seed=1)
    alone = list(DataLoader(stream, batch_size=None))
    loader = DataLoader(stream, batch_size=None, num_workers=workers, multiprocessing_context=method)
    together = list(loader)
    assert len(alone) == len(together) == 4
    for one, other in zip(alone, together, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            same = (
                torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]
            )
            assert same, name


def test_batches_are_those_of_the_dataset(data):
    stream = FMRIStream(data, batch_size=4)
    order = stream.order(0).tolist()
    loader = DataLoader(data, batch_size=4, sampler=order)
    for ours, theirs in zip(stream, loader, strict=True):
        assert torch.equal(ours["signal"], theirs["signal"])
        assert ours["start"].dtype == theirs["start"].dtype
        assert ours["run"] == theirs["run"]


def test_persistent_workers_follow_the_epoch(data):
    stream = FMRIStream(data, batch_size=4, seed=2)
    loader = DataLoader(stream, batch_size=None, num_workers=2, persistent_workers=True)
    for epoch in (0, 1, 5):
        stream.set_epoch(epoch)
        assert keys(loader) == keys(stream_at(data, epoch))


def stream_at(data, epoch):
    stream = FMRIStream(data, batch_size=4, seed=2)
    stream.set_epoch(epoch)
    return stream


@pytest.mark.parametrize("workers", [0, 2])
def test_a_pass_can_be_resumed_with_another_number_of_workers(data, workers):
    stream = FMRIStream(data, batch_size=3, seed=5)
    stream.set_epoch(4)
    whole = keys(stream)
    state = json.loads(json.dumps(stream.state_dict(consumed=2)))
    resumed = FMRIStream(data, batch_size=3, seed=5)
    resumed.load_state_dict(state)
    resumed.set_epoch(4)
    assert len(resumed) == len(whole) - 2
    assert keys(DataLoader(resumed, batch_size=None, num_workers=workers)) == whole[2:]
    resumed.set_epoch(5)
    assert len(keys(resumed)) == len(whole)
    done = FMRIStream(data, batch_size=3, seed=5)
    done.load_state_dict(stream.state_dict(consumed=len(whole)))
    assert (done.epoch, len(done)) == (5, len(whole))


def test_processes_share_the_batches_evenly(data):
    whole = keys(FMRIStream(data, batch_size=3, seed=1))
    parts = [keys(FMRIStream(data, batch_size=3, seed=1, rank=r, world_size=2)) for r in range(2)]
    assert parts == [whole[:4:2], whole[1:4:2]]
    assert keys(FMRIStream(data, batch_size=3, seed=1, drop_last=True)) == whole[:4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"batch_size": 2, "shuffle": "all"}, "shuffle must be"),
        ({"batch_size": 2, "rank": 2, "world_size": 2}, "rank must be 0 to 1"),
    ],
)
def test_options_that_make_no_sense_are_an_error(data, options, message):
    with pytest.raises(ValueError, match=message):
        FMRIStream(data, **options)


def test_a_place_of_other_settings_is_refused(data):
    state = FMRIStream(data, 3, seed=5).state_dict(consumed=1)
    with pytest.raises(ValueError, match="seed"):
        FMRIStream(data, 3, seed=6).load_state_dict(state)
    with pytest.raises(ValueError, match="no such place"):
        FMRIStream(data, 3, seed=5).load_state_dict(state | {"batch": 99})
    with pytest.raises(ValueError, match="consumed must be 0 to"):
        FMRIStream(data, 3).state_dict(consumed=99)
    with pytest.raises(ValueError, match="epoch must be at least 0"):
        FMRIStream(data, 3).set_epoch(-1)
