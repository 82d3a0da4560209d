"""A card with something in every part, with the texts that a test asks for."""

from seq2seq.evaluate.card import (
    Card,
    ConfidenceCard,
    Example,
    ExampleKind,
    MetricScore,
    Overlap,
    Rate,
    ReliabilityBin,
    Slice,
    SystemCard,
    TrainingText,
    WordRecall,
)
from seq2seq.evaluate.card import TestConfidence as CurveOfTest  # or pytest would collect it
from seq2seq.evaluate.card import TestSetCard as TextCard

NASTY = (
    "<script>document.title='owned'</script>",
    '"><img src=x onerror="document.title=\'owned\'">',
    "</style></title><svg onload=document.title='owned'>",
    "{{body}} {{style}} `|` **bold** [link](javascript:alert(1)) <!-- --> &lt; http://evil.example/x.png",
    "שלום עולם, 你好。\u202eabc\x00\x1b[31m | a\nb\r\n# c",
)


def full_card(text: str = "some text", *, overlap: int = 3) -> Card:
    """A card; ``text`` is in every field that has free text."""
    scores = (
        MetricScore(name="BLEU", score=31.25, signature=f"nrefs:1|{text}", details=text, interval=(29.0, 33.5)),
        MetricScore(name="chrF2", score=55.5, signature="nrefs:1|case:mixed", interval=(54.0, 57.0)),
        MetricScore(name="TER", score=50.0, signature="nrefs:1|case:lc"),
    )
    without = (MetricScore(name="BLEU", score=28.5, signature="nrefs:1", interval=(26.0, 31.0)),)
    bins = [(0.0, 0.5, 40, 0.3, 0.25), (0.5, 0.8, 0, 0.65, 0.0), (0.8, 1.0, 60, 0.9, 0.95)]
    names = ("low", "high", "lines", "mean_probability", "acceptable")
    example = Example(line=7, source=text, translation=f"a {text}", reference=f"b {text}", chrf=12.5)
    return Card(
        version="1.0",
        date="2026-01-02T03:04:05Z",
        system=SystemCard(
            name=text,
            is_model=True,
            languages=(text, 'x" onload="y'),
            step=1234,
            num_parameters=4321,
            metadata={text: text},
            decode={text: text, "beam_size": 5, "tag": None, "sample": False},
            search=text,
            seconds=2.0,
            device=text,
        ),
        test=TextCard(name=text, lines=100, src_blake2b="ab" * 16, ref_blake2b=("cd" * 16, "ef" * 16)),
        scores=scores,
        notes=(text,),
        overlap=Overlap(
            training_pairs=5000,
            exact_pairs=1,
            exact_sources=overlap,
            exact_references=1,
            near_sources=0,
            lines=tuple(range(1, overlap + 1)),
            examples=((3, text, text),),
            without=without,
            without_exact=without,
        ),
        rates=(
            Rate(flag="long", lines=20, share=0.2, reference_lines=2),
            Rate(flag=text, lines=0, share=0.0, reference_lines=1),
        ),
        slices=(
            Slice(kind=text, name=text, lines=60, bleu=35.0, chrf=60.0),
            Slice(kind=text, name="others", lines=40, bleu=25.0, chrf=50.0),
        ),
        recalls=(WordRecall(kind=text, words=10, found=4), WordRecall(kind="none", words=0, found=0)),
        examples=(ExampleKind(kind=text, examples=(example,)), ExampleKind(kind="none", examples=())),
        confidence=ConfidenceCard(
            method=text,
            metric="chrF",
            threshold=50.0,
            calibration_lines=900,
            calibration_error=0.02,
            auc=0.8,
            auc_per_token=0.7,
            bins=tuple(ReliabilityBin(**dict(zip(names, values, strict=True))) for values in bins),
            test=CurveOfTest(
                lines=90,
                calibration_error=0.123,
                auc=0.75,
                auc_per_token=0.65,
                bins=(ReliabilityBin(low=0.0, high=1.0, lines=90, mean_probability=0.5, acceptable=0.6),),
            ),
        ),
        data=(TrainingText(name=text, files=(text, text), pairs=5000, weight=2.0, tag=text),),
        left_out={text: 12},
    )


def bare_card() -> Card:
    """A card of translations without source, model and training text."""
    return Card(
        version="1.0",
        date="2026-01-02T03:04:05Z",
        system=SystemCard(name="out.txt", is_model=False),
        test=TextCard(name="ref.txt", lines=2, ref_blake2b=("cd" * 16,)),
        scores=(MetricScore(name="BLEU", score=0.0, signature="nrefs:1"),),
    )
