"""What is there for speed alone."""
