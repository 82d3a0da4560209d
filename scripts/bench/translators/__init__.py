"""Programs that translate with the same weights, one small file each, run by :mod:`bench.decoding`."""
