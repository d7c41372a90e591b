"""The promises of reliability, shown on the real product: ``make prove``.

A promise is a sentence with a figure: *200 kills, nothing acknowledged is lost*. Each one here does
to the product what the sentence says, at full scale, and counts. `promise.py` says what a promise
is; every other module holds the promises of one kind of harm in a tuple ``PROMISES``, and is found
by that name. The short forms of the same run in ``make test`` (tests/prove).

What a figure means, and the latest ones: docs/understand/proven-promises.md.
"""
