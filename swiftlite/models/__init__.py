"""Networks of the engine: one decoder driven by data, and the loader that fills it."""
