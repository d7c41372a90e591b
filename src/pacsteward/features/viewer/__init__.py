"""The viewer: OHIF in the browser, beside the archive on the same origin."""
