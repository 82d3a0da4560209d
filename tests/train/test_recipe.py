"""Promise: what a config leaves open fits the text, the bounds and the machine; what it states is never changed."""

from dataclasses import replace
from typing import Any

import pytest

from seq2seq.config import Config
from seq2seq.data.formats.pairs import SentencePair
from seq2seq.data.formats.text_size import TextSize, measure_text
from seq2seq.train.recipe import TEXT_KEYS, Pace, largest_step, needs_pace, run_choices, step_tokens, text_choices

SPEED = {"tiny": 8_000.0, "small": 2_500.0, "base": 500.0, "big": 150.0}  # two cores
GPU = {"tiny": 2e6, "small": 1e6, "base": 5e5, "big": 2e5}


def made(**sections: Any) -> Config:
    files = {"src": "a", "tgt": "b"}
    return Config.model_validate({"run_dir": "r", "data": {"train": files, "valid": files}, **sections})


def text(
    pairs: int, src: str = "a short line of text here", tgt: str = "eine kurze Zeile mit Text", words: int = 50_000
) -> TextSize:
    """A text of so many pairs, with so many different words on each side that has spaces."""
    size, sides = measure_text([SentencePair(src, tgt, 0)]), []
    for side in (size.src, size.tgt):
        num_words = None if side.num_words is None else words
        sides.append(replace(side, num_characters=side.num_characters * pairs, num_words=num_words))
    return TextSize(pairs, *sides)


def of_text(config: Config, size: TextSize, speed: dict[str, float] = SPEED) -> dict[str, Any]:
    largest = 4_096 if speed is SPEED else 25_000
    return {c.key: c.value for c in text_choices(config, size, speed, largest, config.open_choices())}


def of_run(config: Config, num_pairs: int, steps_per_epoch: int, pace: Pace | None) -> dict[str, Any]:
    config = config.with_choices({"model.preset": "tiny"})
    return {c.key: c.value for c in run_choices(config, num_pairs, steps_per_epoch, pace, config.open_choices())}


def test_a_text_of_any_size_gets_a_recipe_that_fits() -> None:
    """Guards against defaults for one size: 20,000 steps over 2,700 pairs, or 8,000 subwords for 300 pairs."""
    sizes = [300, 3_000, 30_000, 300_000, 3_000_000]
    chosen = [of_text(made(), text(size), GPU) for size in sizes]
    assert [choices["model.preset"] for choices in chosen] == ["tiny", "tiny", "tiny", "small", "base"]
    vocabularies = [choices["tokenizer.vocab_size"] for choices in chosen]
    assert vocabularies == sorted(vocabularies)
    assert vocabularies[0] <= 1_000 < 16_000 <= vocabularies[-1]


def test_a_large_text_and_little_time_get_a_small_model() -> None:
    """On a slow machine a large model would see its text too few times."""
    assert of_text(made(train={"max_minutes": 20}), text(3_000_000), SPEED)["model.preset"] == "tiny"
    assert of_text(made(train={"max_minutes": 60}), text(3_000_000), GPU)["model.preset"] == "base"
    assert of_text(made(train={"max_minutes": 5}), text(3_000), SPEED)["model.preset"] == "tiny"


def test_scripts_decide_about_one_vocabulary() -> None:
    """Two languages without common characters share nothing; stated tying needs one vocabulary all the same."""
    chinese = text(3_000, tgt="一行短的文字")
    assert of_text(made(), chinese)["tokenizer.joint"] is False
    assert of_text(made(), text(3_000))["tokenizer.joint"] is True
    assert of_text(made(model={"tie_embeddings": "all"}), chinese)["tokenizer.joint"] is True
    assert "tokenizer.joint" not in of_text(made(tokenizer={"joint": True}), chinese)


def test_usual_characters_are_no_bytes() -> None:
    """Digits and capital letters with dots are rare, but every text needs them; not so the rare ones of thousands."""
    few = text(1)
    few.src.alphabet.update({"e": 1_000_000, "5": 12, "☃": 9, "%": 6})
    few.tgt.alphabet.update({"e": 1_000_000, "Ü": 12, "%": 6})  # both sides count, where they have one vocabulary
    chosen = of_text(made(), few)
    assert {"5", "Ü"} <= (few.src.alphabet + few.tgt.alphabet).keys()
    covered = replace(few.src, alphabet=few.src.alphabet + few.tgt.alphabet)
    characters = covered.characters_to_cover(chosen["tokenizer.character_coverage"])
    assert {"5", "Ü", "%"} <= characters
    assert "☃" not in characters
    many = text(1)
    many.tgt.alphabet.update({chr(0x4E00 + number): 9 for number in range(3_000)})
    assert of_text(made(tokenizer={"joint": False}), many)["tokenizer.character_coverage"] == 0.9995


def test_the_keys_that_need_the_text_are_known() -> None:
    """Guards against a key that alone is open, and gets its default because nobody looked at the text."""
    assert set(of_text(made(), text(3_000))) == set(TEXT_KEYS)


def test_small_models_depart_from_the_paper() -> None:
    """tiny and small learn more in the same time with what came later; base and big are those of the paper."""
    keys = ("model.positions", "optim.name", "optim.embedding_lr_ratio")
    for preset, *expected in (
        ("tiny", "rotary", "muon", 4.0),
        ("small", "rotary", "muon", 4.0),
        ("base", "sinusoidal", "adamw", 1.0),
    ):
        chosen = of_text(made(model={"preset": preset}), text(3_000))
        assert [chosen[key] for key in keys] == expected
    odd = made(model={"preset": "tiny", "d_model": 36, "num_heads": 4})  # no pairs of numbers to rotate
    assert of_text(odd, text(3_000))["model.positions"] == "sinusoidal"


def test_dropout_grows_with_the_number_of_epochs() -> None:
    """Text that is seen a few times needs little of it, text that is seen often much; other models have the paper's."""

    def dropout(preset: str, epochs: int) -> float:
        config = made(model={"preset": preset}, train={"max_epochs": epochs})
        chosen = run_choices(config, 3_000, 40, Pace(0.01, 0.1), config.open_choices())
        return next(choice.value for choice in chosen if choice.key == "model.dropout")

    assert [dropout("tiny", epochs) for epochs in (2, 10, 20, 40)] == [0.0, 0.1, 0.2, 0.3]
    assert (dropout("base", 40), dropout("big", 2)) == (0.1, 0.3)


def test_a_vocabulary_has_room_for_the_characters() -> None:
    """Guards against a tokenizer that cannot be trained, or writes usual characters as bytes."""
    characters = "".join(chr(0x4E00 + number) for number in range(3_000))
    assert of_text(made(), text(1_000, tgt=characters))["tokenizer.vocab_size"] >= 3_600


def test_a_text_of_few_words_gets_few_pieces() -> None:
    """Guards against pieces that are whole phrases of a text that says much the same again and again: the test score of
    2,700 sentences of 726 words after 464 steps is 58 with 1,900 pieces, and 78 with 1,000."""

    def pieces(words: int) -> int:
        size: int = of_text(made(), text(2_700, tgt="一行短的文字", words=words))["tokenizer.vocab_size"]
        return size

    assert (pieces(726), pieces(2_000), pieces(50_000)) == (1_100, 1_900, 1_900)
    assert pieces(10) == 400  # room for the characters
    few = text_choices(made(), text(2_700, words=10), SPEED, 4_096, made().open_choices())
    assert next(choice.reason for choice in few if choice.value == 400) == "the text has 20 different words"
    both = of_text(made(), text(2_700, words=500))  # one vocabulary for both sides has the words of both
    assert both["tokenizer.vocab_size"] == 1_500
    apart = of_text(made(tokenizer={"joint": False}), text(2_700, words=500))  # the larger side's for each
    assert apart["tokenizer.vocab_size"] == 800
    unspaced = of_text(made(), text(2_700, src="一行短的文字", tgt="一行短的文字", words=10))
    assert unspaced["tokenizer.vocab_size"] == 1_900


def test_minutes_become_steps_that_fit() -> None:
    """The schedule ends when the time does: validations count, and a little is left for saving."""
    chosen = of_run(made(train={"max_minutes": 10}), 30_000, 400, Pace(step=0.2, validation=4.0))
    assert 0.96 * 600 < chosen["train.max_steps"] * 0.2 + 10 * 4.0 < 0.98 * 600
    assert chosen["optim.schedule"] == "linear"
    assert chosen["train.patience"] is None
    assert 0 < chosen["optim.warmup_steps"] < chosen["train.max_steps"] // 5
    assert chosen["train.validate_every"] == -(-chosen["train.max_steps"] // 10)


def test_the_schedule_depends_on_the_epochs_of_small_models() -> None:
    """A straight line learns more from text that is seen a few times, a cosine from text that is seen often."""

    def schedule(preset: str, epochs: int) -> str:
        config = made(train={"max_epochs": epochs}).with_choices({"model.preset": preset})
        chosen = {c.key: c.value for c in run_choices(config, 3_000, 40, Pace(0.01, 0.1), config.open_choices())}
        return str(chosen["optim.schedule"])

    assert [schedule("tiny", epochs) for epochs in (2, 25, 26, 80)] == ["linear", "linear", "cosine", "cosine"]
    assert (schedule("small", 10), schedule("base", 10)) == ("linear", "cosine")


def test_much_time_for_little_text_is_not_used_up() -> None:
    """More passes over 3,000 pairs do not help, whatever time there is; without a bound there is an end, too."""
    hours = of_run(made(train={"max_minutes": 600}), 3_000, 40, Pace(0.1, 1.0))["train.max_steps"]
    assert hours == of_run(made(), 3_000, 40, Pace(0.1, 1.0))["train.max_steps"] <= 100 * 40
    assert of_run(made(train={"max_epochs": 500}), 3_000, 40, Pace(0.1, 1.0))["train.max_steps"] == 500 * 40
    assert of_run(made(), 5_000_000, 40_000, Pace(1.0, 60.0))["train.max_steps"] <= 8 * 3600


def test_a_run_without_a_bound_says_how_long_it_takes() -> None:
    """Guards against a table that tells a newcomer the number of steps, but not whether they take minutes or days."""
    config = made().with_choices({"model.preset": "tiny"})
    for step, time in ((0.01, "32 s"), (0.1, "5 minutes"), (4.0, "3.6 hours")):
        reasons = {c.key: c.reason for c in run_choices(config, 3_000, 40, Pace(step, 1.0), config.open_choices())}
        assert reasons["train.max_steps"].endswith(f"with 3,000 pairs; about {time}, plus validation")


def test_stated_steps_need_no_clock() -> None:
    """Two runs of the same config with a stated number of steps are equal, however busy the machine is."""
    config = made(train={"max_steps": 1_000})
    slow, fast = (of_run(config, 30_000, 400, Pace(step, 9.0)) for step in (2.0, 0.1))
    differing = {key for key in slow if slow[key] != fast[key]}
    assert differing <= {"train.save_every"}  # which changes no number of a run
    assert fast["train.validate_every"] == 100


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 15, 1_000_000])
def test_any_number_of_steps_gets_a_valid_config(steps: int) -> None:
    """Guards against a warmup as long as the run, a decay of 1, and a run without a validation."""
    config = made(train={"max_steps": steps}).with_choices({"model.preset": "tiny"})
    filled = config.with_choices(of_run(config, 3_000, 40, None))
    assert filled.optim.warmup_steps < steps
    assert 0 <= filled.train.ema_decay < 1
    assert 1 <= filled.train.validate_every <= steps


def test_a_run_without_a_last_step_ends_by_patience() -> None:
    """A cosine needs a last step; without one, only a score that stops rising ends the run."""
    chosen = of_run(made(train={"max_steps": None, "max_epochs": 9}), 3_000, 40, Pace(0.1, 1.0))
    assert (chosen["optim.schedule"], chosen["train.patience"]) == ("inverse_sqrt", 10)
    stated = of_run(made(train={"max_steps": 99}, optim={"schedule": "constant"}), 3_000, 40, None)
    assert (stated.get("optim.schedule"), stated["train.patience"]) == (None, 10)


def test_validations_that_take_long_are_fewer() -> None:
    """Guards against a run of minutes that spends most of them on validations."""
    chosen = of_run(made(train={"max_minutes": 5}), 30_000, 400, Pace(step=0.2, validation=30.0))
    validations = chosen["train.max_steps"] / chosen["train.validate_every"]
    assert 1 < validations <= 2
    assert 0.09 < chosen["train.first_validation"] / chosen["train.max_steps"] <= 0.11


@pytest.mark.parametrize("validation", [0.1, 4.0, 8.0, 12.0, 20.0, 40.0, 60.0])
@pytest.mark.parametrize("every", ["auto", 50])
def test_steps_and_validations_use_the_minutes(validation: float, every: object) -> None:
    """Guards against a run of ten minutes that ends after seven, and one that its bound stops before its last steps."""
    config = made(train={"max_minutes": 10, "validate_every": every})
    chosen = of_run(config, 30_000, 400, Pace(step=0.2, validation=validation))
    interval = chosen.get("train.validate_every", every)
    number = -(-chosen["train.max_steps"] // interval) + ("train.first_validation" in chosen)
    used = chosen["train.max_steps"] * 0.2 + number * validation
    assert 0.97 * 600 - validation < used < 0.97 * 600 + (validation if every == 50 else 1.0)


def test_minutes_that_validations_alone_fill_are_half_for_steps() -> None:
    """Guards against a run of one step, whose bound is a mistake or whose validation text is far too large."""
    chosen = of_run(made(train={"max_minutes": 1}), 30_000, 400, Pace(step=0.2, validation=100.0))
    assert chosen["train.max_steps"] * 0.2 == pytest.approx(0.97 * 30, abs=0.2)


def test_a_stated_interval_has_no_earlier_validation() -> None:
    """What is stated wins; and where a tenth of the run is the interval, it is the first validation."""
    for stated in ({"max_steps": 900, "validate_every": 900}, {"max_steps": 900}):
        assert "train.first_validation" not in of_run(made(train=stated), 3_000, 40, None)


@pytest.mark.parametrize(
    ("steps", "every", "why"),
    [(1, 1, "at the end of the run"), (6, 1, "6 times in the run"), (15, 2, "8 times in the run")],
)
def test_short_runs_say_how_often_they_validate(steps: int, every: int, why: str) -> None:
    """A run of one step was to be validated "10 times in the run"."""
    choices = run_choices(made(train={"max_steps": steps}), 3_000, 40, None, {"train.validate_every"})
    assert [(c.value, c.reason) for c in choices if c.key == "train.validate_every"] == [(every, why)]


def test_saving_is_bounded_by_time() -> None:
    """On a GPU a tenth of a run can be hours: what a kill costs must not grow with it."""
    chosen = of_run(made(train={"max_steps": 1_000_000}), 5_000_000, 10_000, Pace(step=0.03, validation=30.0))
    assert chosen["train.save_every"] * 0.03 == pytest.approx(600, rel=0.01)


def test_steps_are_small_where_text_or_time_is_short() -> None:
    """A run of a hundred large steps learns less than one of a thousand small ones; a large text fills the device."""

    def step(train: dict[str, Any], pairs: int, tokens: int, speed: float, processes: int, device: str) -> int:
        return step_tokens(made(train=train), pairs, tokens, speed, largest_step(device, processes))[0]

    assert step({}, 3_000, 40_000, 8_000, 1, "cpu") == step({}, 9, 99, 1e6, 8, "cuda") == 1_024
    assert step({}, 5_000_000, 10**8, 8_000, 1, "cpu") == 4_096
    assert step({"max_minutes": 2}, 5_000_000, 10**8, 8_000, 1, "cpu") == 1_024
    assert step({}, 5_000_000, 10**8, 1e6, 4, "cuda") == 100_000
    assert step({"max_steps": 100}, 200_000, 2_000_000, 8_000, 1, "cpu") == 4_096
    reasons = [
        step_tokens(made(train=train), 5_000_000, 10**8, 8_000, 4_096)[1]
        for train in ({}, {"max_minutes": 2}, {"max_steps": 9})
    ]
    assert [reason.split(",")[0] for reason in reasons] == [
        "there is time for many steps",
        "many small steps learn more than a few large ones",
        "the number of steps is stated",
    ]
    small = step_tokens(made(train={"max_steps": 9}), 3_000, 40_000, 8_000, 4_096)
    assert small == (1_024, "the text is small")
    # A stated number of steps does not make them small: the device is there to be used.
    assert step({"max_steps": 100_000}, 4_500_000, 135_000_000, 1e6, 8, "cuda") == 200_000


@pytest.mark.parametrize(
    ("train", "pace", "most"),
    [
        ({"max_steps": 100_000, "max_minutes": 5}, Pace(0.2, 1.0), 1_500),
        ({"max_steps": 100_000, "max_epochs": 2}, None, 600),
        ({"max_steps": None, "max_epochs": 2}, Pace(0.2, 1.0), 600),
        ({"max_steps": None, "max_minutes": 5}, Pace(0.2, 1.0), 1_500),
    ],
)
def test_the_smallest_bound_decides_the_schedule(train: dict[str, Any], pace: Pace | None, most: int) -> None:
    """Guards against a warmup that the run never leaves, and a first validation after its end."""
    config = made(train=train)
    assert needs_pace(config, config.open_choices())  # for train.save_every at least
    chosen = of_run(config, 30_000, 300, pace)
    assert chosen["optim.warmup_steps"] <= most // 10
    assert chosen["train.validate_every"] <= most // 3
    assert chosen["train.ema_decay"] <= 1 - 1 / (0.05 * most) + 1e-6


def test_a_model_that_has_been_trained_learns_more_slowly() -> None:
    """Guards against a fine-tuning that begins with the rate of a new model, and forgets all that it knew."""
    new, trained = (
        of_run(made(init=init, optim={"name": "muon"}), 3_000, 40, Pace(0.2, 1.0))
        for init in ({}, {"from": "runs/general"})
    )
    assert (trained["optim.lr"], new["optim.lr"]) == (1.5e-3, 9e-3)  # as somebody would write it, not 0.00149...
    assert (trained["optim.weight_decay"], new["optim.weight_decay"]) == (0, 0.2)
    both = {"optim.lr": 0, "optim.weight_decay": 0}
    assert {**trained, **both} == {**new, **both}


def test_what_is_stated_decides_what_follows_from_it() -> None:
    """A learning rate for a model of another width diverges; checkpoints follow the validations that are stated."""
    wide = made(
        model={"preset": "tiny", "d_model": 1024, "num_heads": 16}, train={"max_steps": 900, "validate_every": 37}
    )
    chosen = {c.key: c.value for c in run_choices(wide, 3_000, 40, None, wide.open_choices())}
    assert (chosen["optim.lr"], chosen["train.save_every"]) == (5e-4, 37)
    assert of_text(wide, text(3_000))["optim.name"] == "adamw"
    chosen_for = [of_run(made(optim={"name": name}), 3_000, 40, Pace(0.2, 1.0)) for name in ("adamw", "muon")]
    assert [chosen["optim.lr"] for chosen in chosen_for] == [3e-3, 9e-3]  # Muon's updates of matrices can be larger
    assert [chosen["optim.weight_decay"] for chosen in chosen_for] == [0, 0.2]
    few = made(train={"max_epochs": 5})
    assert of_text(few, text(3_000_000), GPU)["model.preset"] == "base"
