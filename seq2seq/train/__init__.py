"""Training: loss, optimizer, checkpoints, metrics, processes, and the loop.

The name can also be called: ``seq2seq.train("my.yaml", ["train.max_minutes=5"])`` trains a model and returns its run
folder (:func:`seq2seq.whole_run.train`).
"""
