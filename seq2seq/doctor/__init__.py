"""`seq2seq doctor`: the rehearsal of a run, with a report of what is fine, what is doubtful and what is wrong."""
