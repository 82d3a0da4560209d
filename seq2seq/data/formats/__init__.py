"""Readers of text files: lines, pairs of lines, and files that are not text."""
