"""mvpose: 3D human poses from archives of calibrated, synchronised multi-view video."""
