"""Memory of batches: used again only when nothing refers to a batch any more, and never copied on its way."""

import copy
import multiprocessing
import pickle
import threading

import pytest

torch = pytest.importorskip("torch")

from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, default_collate  # noqa: E402

from neurokern.datasets.batch_memory import BatchMemory  # noqa: E402
from neurokern.datasets.window_items import LazyItems, WindowItem  # noqa: E402

pytestmark = pytest.mark.cpu_only
SHAPE = (4, 8, 100)


def take(memory, value, shape=SHAPE, dtype=torch.float32):
    return memory.take(shape, dtype, shared=False).fill_(value)


# ---- memory


def test_memory_is_used_again_once_a_batch_is_gone_and_not_before():
    memory = BatchMemory("test")
    first = take(memory, 1)
    place = first.data_ptr()
    second = take(memory, 2)
    assert second.data_ptr() != place
    assert (first == 1).all()
    del first
    assert take(memory, 3).data_ptr() == place
    assert (second == 2).all()


@pytest.mark.parametrize(
    "derive",
    [
        lambda batch: batch[1],
        lambda batch: batch.view(-1)[5:],
        lambda batch: batch.numpy(),
        lambda batch: batch.numpy()[::2],
        lambda batch: memoryview(batch.numpy()),
        lambda batch: batch.untyped_storage(),
        lambda batch: batch.transpose(1, 2),
        lambda batch: torch.from_dlpack(batch),
        lambda batch: {"signal": batch.detach()},
        lambda batch: copy.copy(batch),
        lambda batch: (torch.ones(100, requires_grad=True) * batch).sum(),  # autograd keeps it
    ],
)
def test_whatever_was_made_of_a_batch_without_copying_keeps_its_memory(derive):
    memory = BatchMemory("test")
    batch = take(memory, 1)
    place, derived = batch.data_ptr(), derive(batch)
    del batch
    held = [take(memory, value) for value in range(6)]
    assert place not in [one.data_ptr() for one in held]
    del derived, held
    assert len(memory._blocks) <= 4


def test_batches_that_are_all_kept_stay_what_they_were():
    memory = BatchMemory("test")
    kept = [take(memory, value) for value in range(20)]
    assert all((batch == value).all() for value, batch in enumerate(kept))
    assert len(memory._blocks) <= 4


def test_blocks_fit_and_too_small_ones_are_let_go():
    memory = BatchMemory("test")
    place = take(memory, 0).data_ptr()
    assert take(memory, 0, (3, 8, 100)).data_ptr() == place  # the last batch of an epoch
    assert take(memory, 0, dtype=torch.bfloat16).dtype == torch.bfloat16
    for n in range(5, 60):  # longer every time: what is too small is not kept
        take(memory, 0, (n, 8, 100))
    assert sum(block.memory.nbytes for block in memory._blocks) <= 2 * 59 * 8 * 100 * 4
    small = take(memory, 0, (1, 1, 1))  # does not sit on a block a thousand times its size
    assert all(small.data_ptr() != block.memory.ctypes.data for block in list(memory._blocks)[:-1])
    assert memory.take((0, 8, 3), torch.float32, shared=False).shape == (0, 8, 3)


def test_threads_never_get_one_block_at_once():
    memory, wrong = BatchMemory("test"), []

    def work(number):
        for i in range(200):
            batch = take(memory, number * 1000 + i)
            if not (batch == number * 1000 + i).all():
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_copy_in_another_process_begins_without_blocks():
    memory = BatchMemory("test")
    take(memory, 0)
    assert not pickle.loads(pickle.dumps(memory))._blocks
    with pytest.raises(ValueError, match="test: a batch would take"):
        memory.take((2**40,), torch.float32, shared=False)


# ---- on its way


class Ramp(Dataset):
    """Item i is i, everywhere; batches are read at once."""

    def __init__(self):
        self.memory = BatchMemory("Ramp")

    def __len__(self):
        return 24

    def __getitem__(self, i):
        return LazyItems(self.batch([i]))[0]

    def __getitems__(self, indices):
        return LazyItems(self.batch(indices))

    def batch(self, indices):
        shared = torch.utils.data.get_worker_info() is not None
        signal = self.memory.take((len(indices), 3, 2), torch.float32, shared=shared)
        numbers = torch.tensor(indices)
        signal[...] = numbers[:, None, None]
        return {"signal": signal, "number": numbers, "name": [str(i) for i in indices]}


def by_hand(batch):
    assert torch.equal(batch["signal"], batch["number"].float()[:, None, None].expand(-1, 3, 2))
    assert batch["name"] == [str(i) for i in batch["number"].tolist()]


def test_pytorchs_own_collate_function_takes_the_batch_as_it_lies():
    items = Ramp().__getitems__([3, 1])
    assert default_collate(items)["signal"] is items.batch["signal"]
    assert items[1]["number"] == 1
    assert type(items[-1]) is WindowItem
    assert [item["name"] for item in items] == [item["name"] for item in items[:]] == ["3", "1"]
    by_hand(default_collate(list(items)))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_that_are_kept_or_not_are_the_same_with_and_without_workers(workers):
    loader = DataLoader(Ramp(), batch_size=5, num_workers=workers)
    numbers = []
    for batch in loader:
        by_hand(batch)
        numbers += batch["number"].tolist()
    assert numbers == list(range(24))
    for batch in list(loader):
        by_hand(batch)


@pytest.mark.parametrize(
    "data", [Subset(Ramp(), range(3, 20)), ConcatDataset([Ramp(), Ramp()])], ids=["subset", "concatenated"]
)
def test_subsets_and_concatenated_sets_give_the_same(data):
    for batch in DataLoader(data, batch_size=4):
        by_hand(batch)


def test_a_batch_can_be_sent_to_another_process_and_kept():
    ramp, queue = Ramp(), multiprocessing.get_context("fork").SimpleQueue()
    for k in range(6):
        queue.put(pickle.dumps(ramp.batch([k, k + 1])["signal"]))
    for k in range(6):
        assert pickle.loads(queue.get())[:, 0, 0].tolist() == [k, k + 1]
    batch = ramp.batch([1])["signal"].share_memory_()
    others = [ramp.batch([i])["signal"] for i in range(5)]
    assert batch[0, 0, 0] == 1
    assert len(others) == 5
