"""Other programs that train the same model, one small file each: its model and loss, run by :mod:`bench.padded`."""
