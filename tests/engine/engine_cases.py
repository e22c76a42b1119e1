"""What the engine is asked in its tests: prompts that share prefixes, options, and a plan with many small shapes."""

from kick_core import engine
from tests.tiny import token_ids

PLAN = engine.BatchPolicy(tokens=512, rows=4, step=16, shortest=16, row=32, pack=96, room=8, prompt=64, packed=True)


def ids(count, seed):
    return token_ids(1, count, vocabulary=128, seed=seed)[0].tolist()


def questions():
    """Two groups that share a prefix, and prompts that share nothing; lengths differ."""
    first, second = ids(19, 1), ids(11, 2)
    made = [[*(first, second)[n % 2], *ids(3 + 5 * n % 11, 10 + n)] for n in range(14)]
    return [*made, *(ids(4 + 9 * n, 90 + n) for n in range(3))]


def options(longest):
    return [[ids(1 + (n + o) % longest, 200 + 4 * n + o) for o in range(4 - n % 2)] for n in range(17)]


def merged(batches):
    found = {}
    for batch in batches:
        assert not set(batch) & set(found)
        found |= batch
    return [found[i] for i in sorted(found)]
