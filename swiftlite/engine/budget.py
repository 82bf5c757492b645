"""How many tokens a step computes."""

from __future__ import annotations

TILE = 128  # tokens: products take as long for a part of a tile as for all of it
LIGHT = 2048  # prompt tokens: while no more wait, answers that run stay fluent


def step_budget(most: int, decodes: int, waiting: int) -> int:
    """Tokens of the next step, where `decodes` sequences take one each and `waiting` tokens of prompts are left.

    Prompts come in pieces (Sarathi-Serve, OSDI 2024) of up to two tiles beside answers that run, so that a long one
    delays nobody's next token by much. Where more wait than LIGHT, the sooner they are through the better for all.
    """
    if not decodes or waiting > LIGHT:
        return most
    return min(most, -(-(decodes + TILE) // TILE) * TILE)
