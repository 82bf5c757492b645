"""Fine-tuning: rows of conversations in, a checkpoint folder out. `sft.run` reads top to bottom."""
