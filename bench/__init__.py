"""The speed of the whole, beside its peer in the same run: ``make bench``.

The rules that keep it honest: one server at a time, fresh storage for each, the same objects and
the same load client for all, encoded before the clock starts; medians of several rounds; the CPU
time of the server's whole process tree; a sample is read back and compared; an error is a failed
run. What a server has made safe when it says Success is printed beside its rate.
"""
