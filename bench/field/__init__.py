"""The field: the same broadcast by tickertape and by other servers, read by the same client: ``make bench-field``.

All peers do the same work: a stream for each subscriber, and an event for everyone with each ``POST /publish``. One
reader, a program in C, holds all connections and notes the time and number of every event. The peers are measured in
turns, several times; the tables have the medians. A peer that cannot be installed is skipped by name.
"""
