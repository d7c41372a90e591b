"""The foundation: settings, database, facts, jobs, clock, errors. Nothing medical."""
