"""What the server counts, in the form that Prometheus reads."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_LINES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters of requests and batches; no text, no address and no key is in them."""

    def __init__(self, waiting: Callable[[], float]) -> None:
        """``waiting`` gives the number of characters in the queue."""
        self._registry = CollectorRegistry()
        self._requests = Counter("seq2seq_requests", "Requests answered.", ["path", "status"], registry=self._registry)
        self._seconds = Histogram(
            "seq2seq_request_seconds", "Time to an answer.", ["path"], buckets=_SECONDS, registry=self._registry
        )
        self._lines = Histogram(
            "seq2seq_batch_lines", "Lines translated together.", buckets=_LINES, registry=self._registry
        )
        self._busy = Counter("seq2seq_engine_seconds", "Time spent translating.", registry=self._registry)
        gauge = Gauge("seq2seq_waiting_characters", "Characters in the queue.", registry=self._registry)
        gauge.set_function(waiting)

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count an answer."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def batch(self, lines: int, seconds: float) -> None:
        """Count a batch."""
        self._lines.observe(lines)
        self._busy.inc(seconds)

    def text(self) -> bytes:
        """All counters."""
        return generate_latest(self._registry)
