"""Models of other programs: import, and export with a proof."""
