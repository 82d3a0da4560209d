"""Promise: each hypothesis sees its own tokens in the caches, all of them, in a growing state and in a fixed one."""

import pytest
import torch

from seq2seq.model import state as state_module
from seq2seq.model.kernels.cuda_graphs import Graphs
from seq2seq.model.state import MASKED, FixedState, State


class Walk:
    """Hypotheses that are continued, doubled and given up, in a state with one cache, beside plain lists of tokens."""

    def __init__(self, num_sentences, num_hypotheses, window):
        self.state, self.window = State(num_hypotheses, window), window
        self.state.shared["all"] = torch.tensor([7, 8, 9])
        self.state.of_sentences["name"] = torch.arange(num_sentences)
        self.held = {name: [[]] for name in range(num_sentences)}
        self.next = 1

    def step(self, rows):
        """``rows``: where each sentence is, by its name. Every token is another number, which its slot holds."""
        size, k = self.state.num_sentences, len(next(iter(self.held.values())))
        tokens = torch.zeros(size, k, dtype=torch.int64)
        for name, hypotheses in self.held.items():
            for i, hypothesis in enumerate(hypotheses):
                hypothesis.append(self.next)
                tokens[rows[name], i] = self.next
                self.next += 1
        mask = self.state.mark(tokens)
        cache = self.state.append("tokens", tokens[:, None], 2)
        assert mask.unique().tolist() in ([MASKED, 0.0], [0.0])
        for name, hypotheses in self.held.items():
            for i, hypothesis in enumerate(hypotheses):
                seen = cache[rows[name], 0][mask[rows[name], i] == 0.0].sort().values.tolist()
                assert seen == (hypothesis if self.window is None else hypothesis[-self.window - 1 :])

    def follow(self, rows):
        parents = torch.randint(
            len(next(iter(self.held.values()))), (self.state.num_sentences, self.state.num_hypotheses)
        )
        for name, hypotheses in self.held.items():
            self.held[name] = [list(hypotheses[i]) for i in parents[rows[name]].tolist()]
        self.state.follow(parents)

    def keep(self, names):
        self.held = {name: self.held[name] for name in names}


@pytest.fixture
def small_rooms(monkeypatch):
    monkeypatch.setattr(state_module, "_STEPS", 2)


@pytest.mark.parametrize("window", [None, 1, 4])
@pytest.mark.parametrize("num_hypotheses", [1, 2, 4])
def test_a_growing_state(small_rooms, num_hypotheses, window):
    """Guards against a token that is overwritten or not seen: when caches grow, when the slots of a window are used
    again, when sentences leave or change places."""
    torch.manual_seed(num_hypotheses)
    walk, names = Walk(5, num_hypotheses, window), [0, 1, 2, 3, 4]
    for kept in ([0, 1, 2, 3, 4], [4, 1, 2, 3], [0, 1, 2, 3], [0, 3, 1], [0, 1, 2], [2, 1, 0], [2], *[[0]] * 4):
        rows = {name: row for row, name in enumerate(names)}
        walk.step(rows)
        walk.follow(rows)
        names = [names[row] for row in kept]
        walk.keep(names)
        walk.state.keep(torch.tensor(kept))
        assert walk.state.of_sentences["name"].tolist() == names
    assert walk.state.position.tolist() == [walk.state.length] == [11]


@pytest.mark.parametrize("window", [None, 1, 4])
@pytest.mark.parametrize("num_hypotheses", [1, 2, 4])
def test_a_fixed_state(small_rooms, num_hypotheses, window):
    """The same where nothing moves, except from one fixed state to the next; rows without a sentence are finite."""
    torch.manual_seed(num_hypotheses)
    walk, graphs = Walk(5, num_hypotheses, window), Graphs(torch.device("cpu"))
    rows = {name: name for name in range(5)}
    walk.step(rows)
    walk.follow(rows)
    for length in range(1, 12):
        if length in (1, 2, 4, 8):  # where there is room for no more, or as sentences leave
            names = {1: [0, 1, 2, 3, 4], 2: [4, 2, 0, 1], 4: [2, 4], 8: [2]}[length]
            kept = torch.tensor([rows[name] for name in names])
            walk.state = FixedState(walk.state, length, kept, 8 // length + 1, graphs.place)
            walk.keep(names)
            rows = {name: row for row, name in enumerate(names)}
            tensors = {**walk.state.of_sentences, **walk.state.of_hypotheses}
            before = {name: (x.data_ptr(), x.shape) for name, x in tensors.items()}
        walk.step(rows)
        walk.follow(rows)
        tensors = {**walk.state.of_sentences, **walk.state.of_hypotheses}
        assert {name: (x.data_ptr(), x.shape) for name, x in tensors.items()} == before
        assert walk.state.position.tolist() == [length + 1]
        assert walk.state.shared["all"].tolist() == [7, 8, 9]


def test_what_is_replaced():
    """Guards against a tensor of a fixed state that moves: a recurrent model has a new one at every step."""
    state, graphs = State(2), Graphs(torch.device("cpu"))
    state.of_sentences["a"], state.of_hypotheses["h"] = torch.ones(3, 2), torch.ones(3, 1, 4)
    state.replace("h", torch.full((3, 1, 4), 2.0))
    state.follow(torch.zeros(3, 2, dtype=torch.int64))
    assert torch.equal(state.of_hypotheses["h"], torch.full((3, 2, 4), 2.0))
    fixed = FixedState(state, 1, torch.tensor([2, 0]), 4, graphs.place)
    place = fixed.of_hypotheses["h"]
    assert torch.equal(place, torch.cat([torch.full((2, 2, 4), 2.0), torch.zeros(2, 2, 4)]))
    fixed.replace("h", torch.full((4, 2, 4), 3.0))
    assert fixed.of_hypotheses["h"] is place
    assert place.unique().tolist() == [3.0]
