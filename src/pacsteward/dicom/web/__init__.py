"""DICOMweb as transport, PS3.18: negotiation, multipart, query parameters, streamed answers.

Nothing here knows what a study means to the house. Rooms translate between these modules and their
logic in a file named ``dicomweb.py``; they take `Request` and `Response` from `answers`, so that
the HTTP library is named in one place only.
"""
