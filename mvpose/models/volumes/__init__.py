"""Volumetric methods: cubes of voxels and pictorial structures."""
