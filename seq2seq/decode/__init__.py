"""Translation of text with a trained model: search, engines, files."""
