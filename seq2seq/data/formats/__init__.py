"""Readers of parallel text: plain lines, tables, translation memories and archives, also compressed."""
