import torch

from swiftlite.layers.prompt_attention import prompt_attention


def test_prompts_attend_to_themselves_and_nothing_else_is_written():
    torch.manual_seed(0)
    heads, kv_heads, d, total = 6, 2, 16, 700
    qkv = torch.randn(total, (heads + 2 * kv_heads) * d)
    q = qkv[:, : heads * d].unflatten(-1, (heads, d))
    k, v = qkv[:, heads * d :].unflatten(-1, (2, kv_heads, d)).unbind(1)
    out = torch.full((total, heads, d), 7.0)
    prompts = ((3, 100), (110, 300), (600, 100))  # the last one has no room to be rounded up
    prompt_attention(q, k, v, out, prompts, 0.3)
    left = torch.ones(total, dtype=torch.bool)
    for first, count in prompts:
        part = slice(first, first + count)
        left[part] = False
        keys, values = (x[part].repeat_interleave(heads // kv_heads, 1).double() for x in (k, v))
        scores = torch.einsum('qhd,khd->hqk', q[part].double(), keys) * 0.3
        scores.masked_fill_(torch.ones(count, count).triu(1).bool(), float('-inf'))
        exact = torch.einsum('hqk,khd->qhd', scores.softmax(-1), values)
        torch.testing.assert_close(out[part].double(), exact, rtol=1e-4, atol=1e-5)
    assert (out[left] == 7).all()
