"""`swiftlite bench`: the engine measured beside transformers, as ratios of one run."""
