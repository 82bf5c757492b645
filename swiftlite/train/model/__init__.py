"""The network that is trained: its adapter or its whole, and the operations that make it fast."""
