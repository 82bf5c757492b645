"""Building blocks of the engine's networks: tensor-parallel, adapter-aware layers over swiftlite_kernels."""
