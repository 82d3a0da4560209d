"""The server: translation over HTTP for many clients at once."""
