"""Fused DLT kernels: numba for the CPU, Triton for CUDA. Both are imported only when a kernel is called."""
