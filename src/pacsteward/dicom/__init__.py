"""DICOM spoken: what the standard says of bytes and text, as pure functions and values.

The modules here touch no network, disk or database; the two doors do (`dimse`, `web`). By theme:

- names of things: `uids`, `attributes`, `vrs`, `names`, `moments`, `charset`, `status`
- an object's bytes: `part10`, `fragments`, `inflate`, `header`, `elements`
- questions and answers: `matching`, `identifier`, `dicomjson`
- pixels: `pixels`, `frames`, `decode`, `transcode`, `render`, `media`

Nothing is imported here: a process that only receives images must not load codecs.
"""
