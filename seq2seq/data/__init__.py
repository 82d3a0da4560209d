"""Parallel text: files, tokenizers, corpora on disk, the order of an epoch, packed batches."""
