"""Kernels of the scan with blocks."""
def scan_blocks(A, b, y0, out, start, stop, reverse, transpose):
    pass
