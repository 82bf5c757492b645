"""How many tiles of tokens a step with adapters has, where they are made on a GPU."""

import pytest

from swiftlite.engine.adapters.manager import most_tiles, tile_room, tile_size


@pytest.mark.parametrize('gpu', [True, False])
@pytest.mark.parametrize('max_tokens', [1, 16, 256, 257, 1024, 1025, 2048, 8192])
@pytest.mark.parametrize('num_pages', [1, 8, 512])
def test_there_is_room_for_the_tiles_of_any_step(max_tokens, num_pages, gpu):
    room = tile_room(max_tokens, num_pages, gpu)
    for tokens in range(1, max_tokens + 1):
        assert most_tiles(tokens, num_pages, gpu) <= room
        # the worst split: the base and every adapter have one token, and the last one all others
        adapters = min(tokens, num_pages + 1)
        split = [1] * (adapters - 1) + [tokens - adapters + 1]
        size = tile_size(tokens, gpu)
        assert sum(-(-count // size) for count in split) <= most_tiles(tokens, num_pages, gpu)
