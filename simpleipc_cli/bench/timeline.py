"""A run over time, in fixed memory: slots of equal width that widen as the run goes on.

For charts. Knows numbers only: the caller says when something happened, in whole
nanoseconds since the run began. Nothing here locks: one timeline belongs to one thread,
and `merge()` joins those of threads and processes that share a start.
"""

from __future__ import annotations

from simpleipc_cli.bench import fields
from simpleipc_cli.bench.histogram import HIGHEST, bucket_bounds, bucket_of, rank_of

SLOTS = 120
"""How many slots there are; as many points as a chart of a page's width can show, at will."""

FIRST_WIDTH = 10_000_000
"""Nanoseconds in a slot at first: 10 ms, at will; a run of ten seconds ends with 160 ms."""

# Of the histogram's buckets 32 in a row are one here: a chart shows no more. 32 is a power of
# two, so no group crosses from one bucket width to the next.
_GROUP_BITS = 5


class TimeBucket:
    """What ended in one stretch of time.

    Its times are kept in at most 624 counters, by the method of histogram.py with 5 bits:
    percentiles are off by 3.2 % at most (below 512 ns, by 16 ns).
    """

    __slots__ = ("_groups", "failures", "max", "requests")

    def __init__(self) -> None:
        """A slot in which nothing happened."""
        self._groups: dict[int, int] = {}
        self.requests = 0
        """How many requests ended, well or not."""
        self.failures = 0
        """How many of them failed; their times are not in the percentiles."""
        self.max: int | None = None
        """The longest time of an answer, in nanoseconds, exact; None if there was none."""

    @property
    def answered(self) -> int:
        """How many requests were answered: the samples behind the percentiles."""
        return self.requests - self.failures

    def answer(self, ns: int) -> None:
        """Add an answer that took `ns` nanoseconds."""
        ns = min(ns, HIGHEST)
        group = bucket_of(ns) >> _GROUP_BITS
        self._groups[group] = self._groups.get(group, 0) + 1
        self.requests += 1
        if self.max is None or ns > self.max:
            self.max = ns

    def fail(self) -> None:
        """Add a request that failed."""
        self.requests += 1
        self.failures += 1

    def add(self, other: TimeBucket) -> None:
        """Add all that is in `other`."""
        for group, count in other._groups.items():
            self._groups[group] = self._groups.get(group, 0) + count
        self.requests += other.requests
        self.failures += other.failures
        if other.max is not None:
            self.max = other.max if self.max is None else max(self.max, other.max)

    def percentile(self, q: float) -> int | None:
        """The nearest-rank percentile of the answers in here, in nanoseconds, roughly.

        None if there was none. It describes this slot, however few answers there were: to
        say something about the endpoint, ask samples_needed() of histogram.py first.
        """
        left = rank_of(q, self.answered)
        for group in sorted(self._groups):
            left -= self._groups[group]
            if left <= 0 and self.max is not None:
                low, high = _group_bounds(group)
                return min((low + high) // 2, self.max)
        return None

    def to_json(self) -> dict[str, object]:
        """All of it, for json.dumps(); `times` lists [lowest ns, highest ns, count]."""
        return {
            "requests": self.requests,
            "failures": self.failures,
            "max": self.max,
            "times": [
                [*_group_bounds(group), self._groups[group]] for group in sorted(self._groups)
            ],
        }

    @classmethod
    def from_json(cls, data: object) -> TimeBucket:
        """What to_json() gave. Raises ValueError that says what is wrong with it."""
        read = fields.mapping(data, "a slot")
        slot = cls()
        slot.requests = fields.whole(read, "requests")
        slot.failures = fields.whole(read, "failures")
        slot.max = fields.whole_or_none(read, "max")
        for entry in fields.items(read, "times"):
            low, high, count = fields.whole_numbers(entry, 3, "an entry of times")
            group = bucket_of(min(low, HIGHEST)) >> _GROUP_BITS
            if _group_bounds(group) != (low, high) or group in slot._groups or not count:
                raise ValueError(f"times cannot have an entry {low} to {high}, {count} times")
            slot._groups[group] = count
        answers = sum(slot._groups.values())
        if slot.answered != answers:
            raise ValueError(
                f"requests is {slot.requests}, but there are {slot.failures} failures"
                f" and {answers} times"
            )
        if not answers:
            fits = slot.max is None
        else:
            low, high = _group_bounds(max(slot._groups))
            fits = slot.max is not None and low <= slot.max <= high
        if not fits:
            raise ValueError(f"max is {slot.max}, which is not among the longest times")
        return slot


class Timeline:
    """What happened when: up to SLOTS slots, from the start of the run.

    When something is too late for the last slot, neighbours become one, as often as
    needed: widths are FIRST_WIDTH times a power of two, and from the first such doubling
    on more than half of the slots are in use up to the latest event.
    """

    __slots__ = ("_slots", "width")

    def __init__(self) -> None:
        """One in which nothing happened."""
        self._slots: list[TimeBucket] = []
        self.width = FIRST_WIDTH
        """Nanoseconds in each slot."""

    @property
    def slots(self) -> list[TimeBucket]:
        """The slots up to the latest event; the n-th, from 0, begins at n * width."""
        return self._slots

    def answer(self, at: int, ns: int) -> None:
        """Add an answer that came `at` nanoseconds after the start and took `ns`.

        Raises ValueError if one is below 0.
        """
        if ns < 0:
            raise ValueError(f"a time is 0 ns or more, not {ns}")
        self._slot(at).answer(ns)

    def fail(self, at: int) -> None:
        """Add a failure, `at` nanoseconds after the start. Raises ValueError if below 0."""
        self._slot(at).fail()

    def merge(self, other: Timeline) -> None:
        """Add all that `other` has seen since the same start; the same as adding it here."""
        while self.width < other.width:
            self._widen()
        # What is narrower there falls into place here: widths differ by powers of two.
        ratio = self.width // other.width
        for index, slot in enumerate(other._slots):
            self._slot(index // ratio * self.width).add(slot)

    def _slot(self, at: int) -> TimeBucket:
        """The slot of a moment, made and widened as needed."""
        if at < 0:
            raise ValueError(f"nothing happens {-at} ns before the start")
        while at >= SLOTS * self.width:
            self._widen()
        index = at // self.width
        while len(self._slots) <= index:
            self._slots.append(TimeBucket())
        return self._slots[index]

    def _widen(self) -> None:
        """Join neighbours, each slot then being twice as wide."""
        for even, odd in zip(self._slots[::2], self._slots[1::2], strict=False):
            even.add(odd)
        del self._slots[1::2]
        self.width *= 2

    def to_json(self) -> dict[str, object]:
        """All of it, for json.dumps(). Times are whole nanoseconds."""
        return {"width": self.width, "slots": [slot.to_json() for slot in self._slots]}

    @classmethod
    def from_json(cls, data: object) -> Timeline:
        """What to_json() gave. Raises ValueError that says what is wrong with it."""
        read = fields.mapping(data, "the timeline")
        timeline = cls()
        timeline.width = fields.whole(read, "width")
        times, rest = divmod(timeline.width, FIRST_WIDTH)
        if rest or times.bit_count() != 1:
            raise ValueError(
                f"width is {timeline.width}, not {FIRST_WIDTH} times 1, 2, 4 and so on"
            )
        slots = fields.items(read, "slots")
        if len(slots) > SLOTS:
            raise ValueError(f"there are {len(slots)} slots, more than {SLOTS}")
        timeline._slots = [TimeBucket.from_json(slot) for slot in slots]
        return timeline


def _group_bounds(group: int) -> tuple[int, int]:
    """The lowest and the highest time in a group of buckets, both in it."""
    first = group << _GROUP_BITS
    last = first + (1 << _GROUP_BITS) - 1
    return bucket_bounds(first)[0], bucket_bounds(last)[1]
