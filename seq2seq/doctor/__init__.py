"""`seq2seq doctor`: it checks the text and the machine before a run, and reports what is fine, doubtful or wrong."""
