"""A hospital's day in a faulty world: one seed is one story, told the same way each time.

In comes a seed. Out comes a story, line by line: modalities send, readers look, an administrator
hides, shows and removes, and meanwhile the power fails, the disk is full, the database is away and
the clock jumps. Beside the archive a model keeps what should be there (`model.py`); after every few
steps the two are compared (`survey.py`). Where they differ the story ends, and the seed that tells
it again is named.

The archive is the real one, over a real folder and a real database. Time, chance and trouble come
from the `World` (`world.py`); the threads of the archive go on one after the other, never side by
side, so that a story does not depend on who was quicker (`process.py`). When the power fails, what
had been written and not synced is lost, as the seed will have it (`disk.py`, `database.py`).

``make sim SEED=7`` tells one story, ``python -m tests.simulation --help`` says what else there is.
"""
