"""One dataclass per command: every field is a flag, documented here and nowhere else."""
