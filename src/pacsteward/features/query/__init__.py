"""Finding patients, studies, series and instances."""
