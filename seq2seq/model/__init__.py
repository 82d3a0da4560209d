"""The architectures: layers, loss, decoding state and int8."""
