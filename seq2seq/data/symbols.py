"""The ids that mean the same in every vocabulary, and the label that counts for nothing."""

PAD_ID = 0
UNK_ID = 1
BOS_ID = 2
EOS_ID = 3
IGNORE_LABEL = -100  # the label that torch's losses leave out by default
