"""What is there for speed alone: other ways to compute what the rest of the model says plainly."""
