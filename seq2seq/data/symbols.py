"""Special ids, the same in every vocabulary, and the label that the loss ignores."""

PAD_ID = 0
UNK_ID = 1
BOS_ID = 2
EOS_ID = 3
IGNORE_LABEL = -100  # the default ignore_index of PyTorch
