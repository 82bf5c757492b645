"""Structured output: a grammar tried out, compiled, and made a mask a token."""
