import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from tests.kernels import naive
from tests.kernels.gradients import exact


def angles(batch, length, size, device='cpu'):
    angle = torch.randn(batch, length, size // 2).repeat(1, 1, 2).to(device)
    return angle.cos(), angle.sin()


def heads(batch, length, count, size, packed, target, dtype):
    """[B, S, heads, size], as rows of a wider projection or as transformers' [B, heads, S, size] seen the other way."""
    if packed:
        wide = torch.randn(batch, length, count * size + 7, device=target.device).to(dtype)
        return wide[..., : count * size].unflatten(-1, (count, size))
    return torch.randn(batch, count, length, size, device=target.device).to(dtype).transpose(1, 2)


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9)), size=st.sampled_from([2, 16, 80, 128]),
    count=st.sampled_from([(1, 1), (7, 1), (6, 2)]), packed=st.booleans(), one=st.booleans(), dtype=st.integers(0, 2),
)  # fmt: skip
def test_as_transformers(target, shape, size, count, packed, one, dtype):
    """Forward is apply_rotary_pos_emb; the gradient is the same with inverse."""
    dtype = target.dtypes[dtype % len(target.dtypes)]
    query, key = (heads(*shape, n, size, packed, target, dtype) for n in count)
    slopes = [torch.randn_like(x) for x in (query, key)]
    cos, sin = angles(1 if one else shape[0], shape[1], size, target.device)

    def formula(q, k):
        return apply_rotary_pos_emb(q, k, cos.double().cpu(), sin.double().cpu(), unsqueeze_dim=2)

    outputs, grads = exact(formula, [query, key], slopes)
    op = target.ops('rope').rotate_query_key
    found = torch.empty_like(query), torch.empty_like(key)
    op(*found, query, key, cos, sin)
    op(*slopes, *slopes, cos, sin, True)  # in place
    for got, want in zip((*found, *slopes), (*outputs, *grads), strict=True):
        assert naive.error(got, want) < naive.TOLERANCE[dtype]
