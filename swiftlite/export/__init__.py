"""Checkpoints made from checkpoints: a LoRA merged into its base."""
