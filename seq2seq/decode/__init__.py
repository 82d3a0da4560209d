"""Search over a trained model, and translation of text."""
