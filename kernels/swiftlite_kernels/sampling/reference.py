"""Sampling in torch. Only ids that survive the filters get noise: on a CPU the noise is the expensive part."""

import torch

GREEDY_BELOW = 1e-5  # temperatures under it take the argmax
WORD = 0xFFFFFFFF
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
WEYL = 0x9E3779B9, 0xBB67AE85
ROUNDS = 7  # the fewest that pass every test of the paper's batteries
CANDIDATES = 1024  # looked at before a full sort
CHUNK = 1 << 16  # counters at a time, to stay in the processor's cache


def philox(counter: torch.Tensor, positions: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
    """Four words [*, 4], int64 holding uint32, for counters (counter, position, 0) and key seed; inputs broadcast."""
    c0, c1, c2, c3 = counter & WORD, positions & WORD, (positions >> 32) & WORD, torch.zeros_like(counter)
    k0, k1 = seeds & WORD, (seeds >> 32) & WORD
    for _ in range(ROUNDS):
        a, b = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]  # wraps at 64 bits, which are the bits wanted
        c0, c1 = ((b >> 32) & WORD) ^ c1 ^ k0, b & WORD
        c2, c3 = ((a >> 32) & WORD) ^ c3 ^ k1, a & WORD
        k0, k1 = (k0 + WEYL[0]) & WORD, (k1 + WEYL[1]) & WORD
    return torch.stack(torch.broadcast_tensors(c0, c1, c2, c3), -1)


def to_uniform(words: torch.Tensor) -> torch.Tensor:
    return (words.float() * 2.0**-32 + 2.0**-33).clamp_(max=1 - 2.0**-24)


def philox_uniform(seeds: torch.Tensor, positions: torch.Tensor, vocab: int) -> torch.Tensor:
    counters = torch.arange((vocab + 3) // 4)
    out = torch.empty(seeds.shape[0], counters.shape[0], 4)
    rows = max(1, CHUNK // counters.shape[0])
    for i in range(0, seeds.shape[0], rows):
        part = slice(i, i + rows)
        out[part] = to_uniform(philox(counters, positions[part, None], seeds[part, None]))
    return out.flatten(1)[:, :vocab]


def gumbel(u: torch.Tensor) -> torch.Tensor:
    """-log(-log1p(-u)): a small u, where fp32 is finest, gives the large values that win."""
    return -torch.log(-torch.log1p(-u))


def sample(
    logits: torch.Tensor,
    temperature: torch.Tensor | None,
    top_k: torch.Tensor | None,
    top_p: torch.Tensor | None,
    min_p: torch.Tensor | None,
    seeds: torch.Tensor | None,
    positions: torch.Tensor | None,
) -> torch.Tensor:
    if temperature is None:
        return logits.argmax(-1)
    drawn = (temperature >= GREEDY_BELOW).nonzero().flatten()
    if drawn.numel() == 0:
        return logits.argmax(-1)
    if seeds is None or positions is None:
        raise ValueError('sample needs seeds and positions when a temperature is given')
    if drawn.numel() < logits.shape[0]:
        result = logits.argmax(-1)
        top_k, top_p, min_p = (None if x is None else x[drawn] for x in (top_k, top_p, min_p))
        result[drawn] = sample(logits[drawn], temperature[drawn], top_k, top_p, min_p, seeds[drawn], positions[drawn])
        return result
    logits = logits.float()
    scaled = logits * (1 / temperature.float())[:, None]
    floor = thresholds(logits, temperature.float(), top_k, top_p, min_p)
    if floor is None:
        return (scaled + gumbel(philox_uniform(seeds, positions, logits.shape[1]))).argmax(-1)
    kept = logits >= floor[:, None]
    rows, ids = kept.nonzero(as_tuple=True)
    if 4 * ids.shape[0] > kept.numel():
        noise = philox_uniform(seeds, positions, logits.shape[1])[rows, ids]
    else:
        words = philox(ids // 4, positions[rows], seeds[rows])
        noise = to_uniform(words.gather(-1, (ids % 4)[:, None])[:, 0])
    scores = torch.full_like(scaled, float('-inf'))
    scores[rows, ids] = scaled[rows, ids] + gumbel(noise)
    return scores.argmax(-1)


def thresholds(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    top_k: torch.Tensor | None,
    top_p: torch.Tensor | None,
    min_p: torch.Tensor | None,
) -> torch.Tensor | None:
    """The lowest logit that each row keeps, fp32 [R]; None when nothing is filtered."""
    vocab = logits.shape[1]
    floor = torch.full((logits.shape[0],), float('-inf'))
    active = False
    top = logits.amax(-1)
    if min_p is not None and bool((min_p > 0).any()):
        active = True
        floor = torch.where(min_p > 0, top + torch.log(min_p.float()) * temperature, floor).clamp(max=top)
    if top_k is not None:
        k = torch.where((top_k <= 0) | (top_k >= vocab), 0, top_k.long())
        most = int(k.max())
        if most > 0:
            active = True
            values = logits.topk(most, -1).values
            kth = values.gather(1, (k - 1).clamp(min=0)[:, None])[:, 0]
            floor = torch.where(k > 0, torch.maximum(floor, kth), floor)
    if top_p is not None:
        rows = (top_p < 1).nonzero().flatten()
        if rows.numel():
            active = True
            floor[rows] = nucleus(logits[rows], 1 / temperature[rows], top_p[rows], floor[rows], top[rows])
    return floor if active else None


def nucleus(
    logits: torch.Tensor, inverse_temperature: torch.Tensor, top_p: torch.Tensor, floor: torch.Tensor, top: torch.Tensor
) -> torch.Tensor:
    """The lowest logit of the smallest set that holds top_p of the mass at or above floor (Holtzman et al. 2020)."""

    def mass(x: torch.Tensor) -> torch.Tensor:
        weight = torch.exp((x - top[:, None]) * inverse_temperature[:, None]).double()
        return weight.masked_fill(x < floor[:, None], 0)

    wanted = (top_p.double().clamp(min=0) * mass(logits).sum(-1))[:, None]
    ordered = logits.topk(min(CANDIDATES, logits.shape[1]), -1).values
    total = mass(ordered).cumsum(-1)
    if bool((total[:, -1:] < wanted).any()):
        ordered = logits.sort(-1, descending=True).values
        total = mass(ordered).cumsum(-1)
    # rounding may leave the whole sum just under the wanted mass: then everything from the floor on stays
    last = (total < wanted).sum(-1, keepdim=True)
    reached = ordered.gather(1, last.clamp(max=ordered.shape[1] - 1))[:, 0]
    return torch.where(last[:, 0] < ordered.shape[1], torch.maximum(reached, floor), floor)


def apply_repetition_penalties(
    logits: torch.Tensor, prompt_mask: torch.Tensor, output_mask: torch.Tensor, repetition_penalties: torch.Tensor
) -> None:
    penalty = torch.where(prompt_mask | output_mask, repetition_penalties.to(logits.dtype)[:, None], 1)
    logits.copy_(torch.where(logits > 0, logits / penalty, logits * penalty))
