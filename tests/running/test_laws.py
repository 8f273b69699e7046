"""What every running statistic obeys."""

import importlib
import inspect
import io
import pkgutil

import pytest
import torch
from torch import nn

import sfumato.running
from sfumato import distributed
from tests.running.statistics import KINDS, batches, space_of

each = pytest.mark.parametrize("name", sorted(KINDS))


def state_after(name, parts):
    kind = KINDS[name]
    module = kind.build()
    for part in parts:
        kind.observe(module, part)
    return module.state_dict(), kind.read(module)


def states_on_this_rank(space=None):
    """Every kind fed this rank's half of each batch."""
    out = {}
    for name in KINDS:
        seen = batches(6, space=space_of(name) if space is None else space)
        out[name] = state_after(name, [b.part(distributed.rank(), distributed.world_size()) for b in seen])
    return out


def test_every_class_is_walked():
    """Calibration bins keep each rank's own share and merge when read, the memory of classes takes keys beside what it
    remembers, what is learned from held-out labels sees no batch, and heads are no statistics: they have tests of
    their own."""
    others = ("calibration", "class_memory", "curriculum", "evaluations", "representation", "second_head")
    classes = set()
    for module in pkgutil.iter_modules(sfumato.running.__path__, "sfumato.running."):
        if module.name.split(".")[-1] not in others:
            found = vars(importlib.import_module(module.name)).values()
            classes |= {c.__name__ for c in found if inspect.isclass(c) and c.__module__ == module.name}
    assert {name.split("-")[0] for name in KINDS} == classes


def test_two_ranks_of_half_a_batch_equal_one_rank(two_ranks):
    alone = states_on_this_rank()
    for both in two_ranks.call(states_on_this_rank):
        assert both.keys() == alone.keys()
        for name, (state, value) in both.items():
            torch.testing.assert_close(value, alone[name][1], rtol=0, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
            for key, buffer in state.items():
                torch.testing.assert_close(
                    buffer, alone[name][0][key], rtol=0, atol=1e-6, msg=lambda m, n=f"{name}.{key}": f"{n}: {m}"
                )


@each
def test_save_and_restore_mid_stream(name):
    kind, seen = KINDS[name], batches(8, space=space_of(name))
    whole, value = state_after(name, seen)
    first, _ = state_after(name, seen[:4])
    file = io.BytesIO()
    torch.save(first, file)
    file.seek(0)
    resumed = kind.build()
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for batch in seen[4:]:
        kind.observe(resumed, batch)
    assert all(torch.equal(buffer, whole[key]) for key, buffer in resumed.state_dict().items())
    assert torch.equal(kind.read(resumed), value)


@each
def test_a_batch_without_a_valid_entry_changes_nothing(name):
    kind, seen = KINDS[name], batches(4, space=space_of(name))
    assert seen[3].valid.sum() == 0
    module = kind.build()
    kind.observe(module, seen[3])  # also when it comes first
    fresh = kind.build()
    assert all(torch.equal(buffer, fresh.state_dict()[key]) for key, buffer in module.state_dict().items())
    before, _ = state_after(name, seen[:3])
    after, _ = state_after(name, seen)
    assert all(torch.equal(buffer, after[key]) for key, buffer in before.items())


@each
def test_reading_changes_nothing(name):
    kind = KINDS[name]
    module = kind.build()
    for batch in batches(2, space=space_of(name)):
        kind.observe(module, batch)
    before = {key: buffer.clone() for key, buffer in module.state_dict().items()}
    assert torch.equal(kind.read(module), kind.read(module))
    assert all(torch.equal(buffer, before[key]) for key, buffer in module.state_dict().items())


@each
def test_values_at_ignored_entries_do_not_matter(name):
    kind, (seen,) = KINDS[name], batches(1, space=space_of(name), seed=2)
    other = type(seen)(seen.p.clone(), seen.valid, seen.index)
    other.p.movedim(1, -1)[seen.valid == 0] = torch.tensor([1.0, 0, 0, 0, 0])
    assert (seen.valid == 0).any()
    states = []
    for batch in (seen, other):
        module: nn.Module = kind.build()
        kind.observe(module, batch)
        states.append(module.state_dict())
    assert all(torch.equal(buffer, states[1][key]) for key, buffer in states[0].items())


@each
def test_a_batch_of_one_stays_finite(name):
    kind = KINDS[name]
    module = kind.build()
    for batch in batches(3, 1, space=space_of(name)):
        kind.observe(module, batch)
    assert kind.read(module).isfinite().all()
    assert all(buffer.isfinite().all() for buffer in module.state_dict().values())


@each
def test_float32_under_autocast_and_from_half_precision(name):
    kind = KINDS[name]
    module = kind.build()
    dtypes = {key: buffer.dtype for key, buffer in module.state_dict().items()}
    (seen,) = batches(1, space=space_of(name))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        kind.observe(module, seen)
    assert {key: buffer.dtype for key, buffer in module.state_dict().items()} == dtypes
    plain = kind.build()
    kind.observe(plain, seen)
    for key, buffer in module.state_dict().items():
        assert torch.equal(buffer, plain.state_dict()[key])
