"""R6 in short: PostgreSQL crashes under load and comes back."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from prove.database_away import DURABLE, outcome_of, suffer_outage
from prove.sites import sending, site

from tests.support.postgres import running_cluster

pytestmark = [pytest.mark.journey, pytest.mark.timeout(300)]


def test_r6_a_crash_of_the_database_loses_nothing_and_needs_no_restart(tmp_path: Path) -> None:
    with (
        running_cluster(DURABLE) as cluster,
        site(tmp_path, cluster.new_database()) as place,
        sending(place.load),
    ):
        outages = [suffer_outage(place, cluster, signal.SIGQUIT, 1.0)]
        place.load.await_acknowledged(20)
        place.load.pause()
        place.survey_all()
        outcome = outcome_of(place, outages, recovery_limit_s=60)
        assert outcome.passed, outcome
