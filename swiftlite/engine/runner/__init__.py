"""One rank: plans become kernels, and tokens come back."""
