"""Kernels of the swiftlite engine: every op has a torch reference (the specification and the CPU path) and a Triton
version.

Op names, argument order and layouts are those of vLLM 0.24. Import the family you need: `from swiftlite_kernels.norm
import rms_norm`. A CUDA tensor runs the Triton version (imported on first use), any other device the reference.
"""
