"""How the property tests damage valid files, and the bounds that a reader must keep while it reads them."""

import faulthandler
import re
import resource
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hypothesis import strategies as st

Input = tuple[bytes, ...]  # one byte string for each part that a reader takes

_SECONDS = 10.0
_MEMORY = 512 << 20  # bytes beyond what the process has before it reads
_LARGEST = 1 << 12  # bytes of a part, unless the valid one is larger

_count = st.sampled_from((0, 1, 1, 1, 2, 3, 5))
_stretch = st.sampled_from(("bytes", "bytes", "number", "line", "rest"))
_length = st.sampled_from((0, 1, 1, 2, 4, 8, 16, 64, 1024))
_change = st.sampled_from(("removed", "bit", "garbage", "word", "number", "binary", "again", "nested", "of another"))
_bit = st.integers(0, 7).map(lambda bit: 1 << bit)
_garbage = st.binary(max_size=16)
_small = (0, 1, -1, 2, 7, 127, 128, 255, 256, 32767, 65535, 65536, 10**6, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1)
_number = st.sampled_from((*_small, 2**63, 2**64 - 1, 2**64, 10**12, 10**30, 10**400, -(2**63)))
_ending = st.sampled_from((b"", b"", b"", b".5", b"e400", b"e-400"))
_size = st.sampled_from((1, 2, 4, 8))
_times = st.sampled_from((2, 2, 3, 9, 64))
_depth = st.sampled_from((1, 1, 1, 2, 21, 1000))
_brackets = st.sampled_from(((b"[", b"]"), (b"{", b"}"), (b'{"a":', b"}"), (b"{a: ", b"}"), (b"'", b"'"), (b'"', b'"')))


@st.composite
def damaged(draw: st.DrawFn, valid: Sequence[Input], words: Sequence[bytes]) -> Input:
    """One of the valid inputs after a few changes, each of one stretch of one part; ``words`` are of its format."""
    parts = list(draw(st.sampled_from(valid)))
    for _ in range(draw(_count)):
        at = draw(st.integers(0, len(parts) - 1))
        data = parts[at]
        start, end = _draw_stretch(draw, data)
        chosen = data[start:end]
        match draw(_change):
            case "removed":
                chosen = b""
            case "bit" if chosen:
                chosen = bytes([chosen[0] ^ draw(_bit)]) + chosen[1:]
            case "bit" | "garbage":
                chosen = draw(_garbage)
            case "word":
                chosen = draw(st.sampled_from(words)) + (chosen if draw(st.booleans()) else b"")
            case "number":
                chosen = str(draw(_number)).encode() + draw(_ending)
            case "binary":  # little-endian, in place
                size = draw(_size)
                chosen = (draw(_number) % (1 << 8 * size)).to_bytes(size, "little") + chosen[size:]
            case "again":
                chosen *= draw(_times)
            case "nested":
                (opening, closing), depth = draw(_brackets), draw(_depth)
                chosen = opening * depth + chosen + closing * depth
            case "of another":
                other = draw(st.sampled_from(valid))
                first, last = _draw_stretch(draw, other[at % len(other)])
                chosen = other[at % len(other)][first:last]
        parts[at] = (data[:start] + chosen + data[end:])[: max(_LARGEST, len(data))]
    return tuple(parts)


def _draw_stretch(draw: st.DrawFn, data: bytes) -> tuple[int, int]:
    """Where a stretch begins and ends: some bytes, a number that is written out, a line, or all the rest."""
    kind = draw(_stretch)
    if kind in ("number", "line"):
        pattern = rb"-?\d+(\.\d+)?" if kind == "number" else rb"[^\n]*\n"
        if found := [match.span() for match in re.finditer(pattern, data)]:
            return draw(st.sampled_from(found))
    start = draw(st.integers(0, len(data)))
    return start, len(data) if kind == "rest" else min(len(data), start + draw(_length))


@contextmanager
def bounded(files: Input, folder: Path) -> Iterator[None]:
    """A block that may take ten seconds of CPU time and half a gigabyte to read ``files``.

    CPU time, because other programs on the machine can make any block slow. More memory is a MemoryError, or what a
    library makes of it. More time ends the process, also inside of a library:
    ``folder/stuck.txt`` then says where, and ``folder/input.txt`` holds the files as Python writes them.
    """
    (folder / "input.txt").write_text(repr(files))
    limits = resource.getrlimit(resource.RLIMIT_AS)
    with open(folder / "stuck.txt", "w") as report:
        faulthandler.register(signal.SIGPROF, report, chain=True)  # which then ends the process
        signal.setitimer(signal.ITIMER_PROF, _SECONDS)
        if (statm := Path("/proc/self/statm")).exists():
            size = int(statm.read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + _MEMORY, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limits)
            signal.setitimer(signal.ITIMER_PROF, 0)
            faulthandler.unregister(signal.SIGPROF)
