"""SIM: hospital days in a faulty world, each from a seed that tells it again."""

from __future__ import annotations

from collections import Counter
from typing import Final

from tests.simulation.runs import Stage, replay_command

from prove.promise import Outcome, Promise, Scale

_SEEDS: Final = 200
_SEEDS_QUICK: Final = 10


def prove_days(scale: Scale) -> Outcome:
    """Live as many days as there are seeds, from the first one on; name those that broke."""
    seeds = range(scale.seed, scale.seed + (_SEEDS_QUICK if scale.is_quick else _SEEDS))
    counted: Counter[str] = Counter()
    broken: dict[str, str] = {}
    with Stage() as stage:
        for seed in seeds:
            day = stage.live(seed)
            counted.update(days=1, acts=day.acts, ends=day.ends)
            if day.broken:
                broken[replay_command(seed)] = f"after {day.lines[-1]}: {day.broken}"
                scale.say(f"seed {seed} broke; {replay_command(seed)}")
            elif counted["days"] % 20 == 0:
                scale.say(f"{counted['days']} of {len(seeds)} days")
    figure = (
        f"{counted['days']} days, {counted['acts']} acts, {counted['ends']} crashes and power "
        f"cuts; {len(broken)} days in which something was lost or done twice"
    )
    if broken:
        figure += f": {', '.join(broken)}"
    return Outcome(not broken, figure, {**counted, "broken": broken})


PROMISES = (
    Promise(
        "SIM",
        "days of a hospital: crashes, power cuts, full disks, an absent database, clock jumps",
        prove_days,
    ),
)
