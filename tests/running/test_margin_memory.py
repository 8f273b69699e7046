import copy
import io
import re

import pytest
import torch

from sfumato.errors import UsageError
from sfumato.running import margin_memory
from sfumato.running import memory as sizes
from sfumato.running.margin_memory import MarginMemory

N, C = 30, 4


def stream(count=40, size=12, *, classes=C, seed=0):
    """Batches in which samples occur several times."""
    draw = torch.Generator().manual_seed(seed)
    shape = (size,) if classes is None else (size, classes)
    return [
        (torch.randint(N, (size,), generator=draw), torch.randn(shape, generator=draw), torch.rand(size) < 0.8)
        for _ in range(count)
    ]


@pytest.mark.parametrize("classes", [None, C])
def test_the_mean_is_the_mean_of_all_visits(classes):
    memory, seen = MarginMemory(N, classes), {i: [] for i in range(N)}
    for index, margin, valid in stream(classes=classes):
        memory.observe(index, margin, valid)
        for i, m, v in zip(index.tolist(), margin, valid, strict=True):
            if v:
                seen[i].append(m.double())
    assert min(map(len, seen.values())) > 2
    want = torch.stack([torch.stack(visits).mean(dim=0) for visits in seen.values()])
    torch.testing.assert_close(memory.at(torch.arange(N)).double(), want, rtol=0, atol=1e-5)
    assert memory.seen(torch.arange(N)).tolist() == [len(visits) for visits in seen.values()]
    assert not memory.average[-1].any()
    assert memory.visits[-1] == 0


@pytest.mark.parametrize(("decay", "options"), [("mean", {}), ("eq5", {"delta": 0.9}), ("ema", {"momentum": 0.8})])
def test_one_visit_a_batch_follows_the_formula(decay, options):
    memory, draw = MarginMemory(N, decay=decay, **options), torch.Generator().manual_seed(0)
    want = torch.zeros(N, dtype=torch.float64)
    for t in range(20):
        margin = torch.randn(N, generator=draw)
        weight = {"mean": 1 / (t + 1), "eq5": 0.9 / (t + 1), "ema": 0.2 if t else 1.0}[decay]
        want = weight * margin + (1 - weight) * want
        memory.observe(torch.arange(N), margin)
    torch.testing.assert_close(memory.at(torch.arange(N)).double(), want, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("decay", "weight"), [("mean", 3 / 4), ("eq5", 0.9 * 3 / 4), ("ema", 1 - 0.8**3)])
def test_a_sample_that_occurs_thrice_is_visited_thrice(decay, weight):
    memory = MarginMemory(N, decay=decay, delta=0.9, momentum=0.8)
    memory.observe(torch.tensor([5]), torch.tensor([10.0]))
    before = memory.at(torch.tensor([5])).item()
    batch = torch.tensor([5, 2, 5, 5]), torch.tensor([1.0, 7.0, 2.0, 6.0])
    twin = copy.deepcopy(memory)
    memory.observe(*batch)
    assert memory.at(torch.tensor([5])).item() == pytest.approx(weight * 3.0 + (1 - weight) * before)
    assert memory.seen(torch.tensor([5, 2, 0])).tolist() == [4, 1, 0]
    twin.observe(*(x.flip(0) for x in batch))
    assert torch.equal(twin.average, memory.average)


def test_a_step_touches_the_rows_of_its_batch_only():
    memory = MarginMemory(N, C)
    memory.average.fill_(torch.nan)
    memory.average[[3, 7, N]] = 0.0
    memory.observe(torch.tensor([3, 7]), torch.ones(2, C))
    assert memory.average[[3, 7]].eq(1).all()
    assert memory.average.isnan().all(dim=1).sum() == N - 2


def test_a_table_in_a_file_is_the_same_table():
    plain, mapped = MarginMemory(N, C), MarginMemory(N, C, memory="mapped")
    assert mapped.mapped
    assert "average" not in dict(mapped.named_buffers())
    for part in stream(10):
        plain.observe(*part)
        mapped.observe(*part)
    assert torch.equal(mapped.at(torch.arange(N)), plain.at(torch.arange(N)))
    assert mapped.state_dict().keys() == plain.state_dict().keys()

    file = io.BytesIO()
    torch.save(mapped.state_dict(), file)
    file.seek(0)
    resumed = MarginMemory(N, C, memory="mapped")
    place = resumed.average.data_ptr()
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert resumed.average.data_ptr() == place, "the table is the one in memory, not the file"
    for part in stream(10, seed=1):
        plain.observe(*part)
        resumed.observe(*part)
    assert torch.equal(resumed.at(torch.arange(N)), plain.at(torch.arange(N)))


def test_a_table_in_a_file_stays_where_it_is():
    memory = MarginMemory(N, C, memory="mapped")
    place = memory.average.data_ptr()
    memory.double().to("cpu")
    assert (memory.average.dtype, memory.average.data_ptr()) == (torch.float32, place)
    memory.observe(torch.tensor([1]), torch.ones(1, C, dtype=torch.float64))
    twin = copy.deepcopy(memory)
    twin.observe(torch.tensor([1]), torch.zeros(1, C))
    assert memory.at(torch.tensor([1])).eq(1).all()
    assert twin.at(torch.tensor([1])).eq(0.5).all()


def test_a_large_table_goes_to_a_file_and_says_so(monkeypatch):
    monkeypatch.setattr(margin_memory, "MAPPED_ABOVE", 2**20)
    with pytest.warns(UserWarning, match=r"The margins of 100,000 samples and 10 classes take 3.8 MiB: they are kept"):
        memory = MarginMemory(100_000, 10)
    assert memory.mapped
    assert not MarginMemory(100_000, 1).mapped
    assert not MarginMemory(100_000, 10, memory="ram").mapped


def test_a_table_larger_than_the_memory_says_its_size_and_offers_a_file(monkeypatch):
    monkeypatch.setattr(sizes, "machine_memory", lambda: 2**30)
    text = (
        "The margins of 1,281,167 samples and 1,000 classes take 4.8 GiB, and this machine has 1.0 GiB of memory. Use "
        "memory='mapped', which keeps them in a file."
    )
    with pytest.raises(UsageError, match=re.escape(text)):
        MarginMemory(1_281_167, 1000, memory="ram")
    assert MarginMemory(1_281_167, 1000, memory="mapped").average.shape == (1_281_168, 1000)


def test_a_file_larger_than_the_disk_says_where_else():
    with pytest.raises(UsageError, match=r"take [\d,.]+ GiB in a file, and .* has .* free. Set TMPDIR to a folder"):
        MarginMemory(10**12, 1000, memory="mapped")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"decay": "eq4"}, "MarginMemory(decay='eq4'): expected one of mean, eq5, ema. Did you mean 'eq5'?"),
        ({"memory": "disk"}, "MarginMemory(memory='disk'): expected one of auto, ram, mapped."),
        ({"delta": 1.5}, "MarginMemory(delta=1.5): expected above 0 and at most 1, such as 0.997."),
        ({"momentum": 1.0}, "momentum=1.0: expected at least 0 and below 1"),
    ],
)
def test_messages(options, text):
    with pytest.raises(UsageError, match=re.escape(text)):
        MarginMemory(N, C, **options)


def test_a_set_of_unknown_size_is_refused():
    with pytest.raises(UsageError, match=re.escape("MarginMemory(num_samples=0): expected the size of the set")):
        MarginMemory(0)
