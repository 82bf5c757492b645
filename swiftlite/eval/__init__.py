"""Answers to data whose answers are known, and how good they are."""
