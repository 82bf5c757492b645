import torch
from hypothesis import given
from hypothesis import strategies as st

from swiftlite_kernels.step import StepRows, StepTensors


@given(data=st.data())
def test_a_steps_inputs_are_those_of_its_rows(target, data):
    """Against plain loops: ragged rows, empty rows at the end, padding tokens, any order of slots."""
    rows = data.draw(st.integers(1, 9))
    empty = data.draw(st.integers(0, 4))
    padding = data.draw(st.integers(0, 200))
    block_size = data.draw(st.sampled_from([1, 3, 16]))
    num_slots, width = 16, 61
    rng = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    slots = torch.randperm(num_slots, generator=rng)[: rows + empty].int()
    counts = torch.randint(1, 30, (rows,), generator=rng)
    starts = torch.randint(0, 31, (rows + empty,), generator=rng).int()
    cu = torch.cat([torch.zeros(1), counts.cumsum(0), counts.sum().expand(empty)]).int()
    sampled = torch.randint(0, 2, (rows + empty,), generator=rng).int()
    tokens = torch.randint(0, 1000, (num_slots, width), generator=rng).int()
    tables = torch.randint(0, 500, (num_slots, -(-width // block_size)), generator=rng).int()
    total = int(counts.sum())
    longest = int((starts[:rows] + counts).max())

    def empties(n, dtype):
        return torch.full((n,), -7, dtype=dtype, device=target.device)

    wide = (empties(total + padding, torch.int64) for _ in range(3))
    out = StepTensors(
        *wide,
        empties(rows + empty, torch.int32),
        empties((rows + empty) * -(-longest // block_size), torch.int32).view(rows + empty, -1),
        *(empties(rows + empty, torch.int64) for _ in range(3)),
    )
    step = StepRows(*(x.to(target.device) for x in (slots, starts, cu, sampled)))
    target.ops('step').prepare_step(step, tokens.to(target.device), tables.to(target.device), block_size, out)

    ids, positions, places = [], [], []
    for r in range(rows):
        slot = int(slots[r])
        for p in range(int(starts[r]), int(starts[r] + counts[r])):
            ids.append(int(tokens[slot, p]))
            positions.append(p)
            places.append(int(tables[slot, p // block_size]) * block_size + p % block_size)
        length = int(starts[r] + counts[r])
        used = -(-length // block_size)
        assert out.block_tables[r, :used].tolist() == tables[slot, :used].tolist()
        assert out.seq_lens[r] == out.lengths[r] == length
        assert out.last[r] == int(cu[r + 1]) - 1
        assert out.write_at[r] == slot * width + (length if sampled[r] else width - 1)
    assert out.input_ids.tolist() == ids + [0] * padding
    assert out.positions.tolist() == positions + [0] * padding
    assert out.slot_mapping.tolist() == places + [-1] * padding
    assert out.seq_lens[rows:].tolist() == [0] * empty
