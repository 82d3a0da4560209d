"""`seq2seq doctor`: checks the text and the machine before a run, and reports what is ok, doubtful or wrong."""
