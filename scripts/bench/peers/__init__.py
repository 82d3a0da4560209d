"""Other programs that train the same model, one small file each: its model and loss, run by :mod:`bench.padded`.

The names are those of ``--peers``. A peer's module states the package it needs and how to install it.
"""

NAMES = ("nn_transformer", "marian", "opennmt", "eole", "joeynmt")
