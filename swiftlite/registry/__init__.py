"""Model families, templates and datasets as data (standard library only)."""
