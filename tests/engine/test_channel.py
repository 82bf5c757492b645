"""Messages between two processes' ends of a pair of sockets."""

import contextlib
import socket
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiftlite.engine.process.channel import LENGTH, Channel


@contextlib.contextmanager
def pair():
    left, right = socket.socketpair()
    with left, right:
        yield Channel(left), Channel(right)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.one_of(st.integers(), st.text(), st.binary(max_size=2000), st.just(b'x' * 700_000)), max_size=12))
def test_messages_arrive_whole_and_in_order(messages):
    with pair() as (left, right):
        for message in messages:
            left.send(message)
        left.send('end')
        got = []
        while (message := right.recv() if not left.unsent else _both(left, right)) != 'end':
            got.append(message)
        assert got == messages


def _both(left, right):
    """The next message, while the sender, in the same thread, sends on."""
    while not right.complete:
        left.flush()
        right.read()
    return right.recv()


def test_a_reader_who_sleeps_holds_up_nobody():
    with pair() as (left, right):
        start = time.monotonic()
        for number in range(50):
            left.send((number, b'x' * 1_000_000))
        assert time.monotonic() - start < 5 and left.unsent
        thread = threading.Thread(target=left.drain, args=(60.0,))
        thread.start()
        assert [right.recv()[0] for _ in range(50)] == list(range(50))
        thread.join()
        assert not left.unsent


def test_waiting_for_a_message_sends_what_was_kept():
    with pair() as (left, right):
        left.send(b'x' * 5_000_000)
        got = []
        thread = threading.Thread(target=lambda: (got.append(right.recv()), right.send('thanks')))
        thread.start()
        assert left.recv() == 'thanks' and len(got[0]) == 5_000_000
        thread.join()


def test_poll_waits_for_a_whole_message():
    left, right = socket.socketpair()
    with left, right:
        channel = Channel(right)
        assert not channel.poll(0)
        left.send(LENGTH.pack(3) + b'N')  # a pickle of three bytes begins
        start = time.monotonic()
        assert not channel.poll(0.05) and time.monotonic() - start >= 0.05
        left.close()
        assert channel.poll(None)
        with pytest.raises(EOFError):
            channel.recv()


def test_the_end_comes_after_what_was_said():
    with pair() as (left, right):
        left.send('last')
        left.close()
        assert right.poll(None) and right.recv() == 'last'
        with pytest.raises(EOFError):
            right.recv()
        with pytest.raises(OSError):
            right.send('anybody?')
        right.drain(1.0)  # nobody reads: no error, no waiting
