"""Every reader of foreign bytes, fed with damaged ones: it returns, or raises the documented error.

`targets.py` lists the readers, `seeds.py` the sound bytes that are damaged, `damage.py` how, and
`watch.py` what must not happen meanwhile. `test_fuzz.py` is the short form for every test run,
`test_found.py` holds what was found once. `python -m tests.fuzz` searches for longer.
"""
