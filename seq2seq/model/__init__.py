"""The Transformer: layers, loss, decoding state and int8."""
