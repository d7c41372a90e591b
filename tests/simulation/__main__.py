"""``python -m tests.simulation``: tell the story of a seed, or look for one that breaks."""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.runs import Stage, replay_command


def main() -> int:
    """Run what was asked for; 1 when a story broke."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=7, help="which story")
    parser.add_argument("--seeds", type=int, default=1, help="so many stories, from that seed on")
    parser.add_argument("--story", action="store_true", help="print it line by line")
    given = parser.parse_args()
    broken = 0
    with Stage() as stage:
        for seed in range(given.seed, given.seed + given.seeds):
            began = time.monotonic()
            result = stage.live(seed, say=print if given.story else lambda _line: None)
            took_s = time.monotonic() - began
            if not result.broken:
                print(f"seed {seed}: {result.acts} acts, {result.ends} ends, {took_s:.1f} s")
                continue
            broken += 1
            print(f"seed {seed} BROKE after {result.acts} acts, at {result.lines[-1]}")
            print(f"  {result.broken}\n  {replay_command(seed)}", flush=True)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
