#!/usr/bin/env bash
# From nothing to a trained model: installs, trains on the embedded English-Chinese corpus, translates a file, scores.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
install_seq2seq plots

seq2seq train configs/quickstart.yaml
seq2seq translate runs/quickstart --input data/test.en --output runs/quickstart/translated.zh

echo
echo "Some sentences of the test set, their translations by the new model, and the references:"
for line in 1 200 400 600 800 1000; do
    for file in data/test.en runs/quickstart/translated.zh data/test.zh; do
        sed -n "${line}p" "$file"
    done
    echo
done
echo "model: runs/quickstart/best   curves: runs/quickstart/curves.png   translations: runs/quickstart/translated.zh"
echo "card of the test set, for a browser: runs/quickstart/card/card.html   (a page about the run: seq2seq report runs/quickstart)"
seq2seq evaluate --hyp runs/quickstart/translated.zh --ref data/test.zh
