"""Fused DLT kernels: numba for the CPU, Triton for CUDA. Nothing heavy is imported until a kernel is called."""
