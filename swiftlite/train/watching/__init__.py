"""What a run says while it runs, and what it leaves to be looked at."""
