"""The engine in a process of its own, and this end of the channel to it."""
