"""How many tiles of tokens a step with adapters has, where they are made on a GPU."""

import pytest

from swiftlite.engine.lora import FEW_TOKENS, most_tiles, tile_room, tile_size


@pytest.mark.parametrize('gpu', [True, False])
@pytest.mark.parametrize('max_tokens', [1, 16, FEW_TOKENS, FEW_TOKENS + 1, 2 * FEW_TOKENS, 8 * FEW_TOKENS])
@pytest.mark.parametrize('num_pages', [1, 8, 512])
def test_there_is_room_for_the_tiles_of_any_step(max_tokens, num_pages, gpu):
    room = tile_room(max_tokens, num_pages, gpu)
    for tokens in range(1, max_tokens + 1):
        assert most_tiles(tokens, num_pages, gpu) <= room
        # the worst split: every adapter has one token, and the last one all others
        adapters = min(tokens, num_pages)
        split = [1] * (adapters - 1) + [tokens - adapters + 1]
        size = tile_size(tokens, gpu)
        assert sum(-(-count // size) for count in split) <= most_tiles(tokens, num_pages, gpu)
