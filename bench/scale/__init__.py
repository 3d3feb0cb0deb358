"""100,000 connections to one machine: the cost of an event and the memory, by the number of workers.

``make bench-scale`` starts ``tickertape serve`` with 1, 2, 4 and 8 workers. Programs in C hold the connections, each
at most as many as its descriptors allow, from several addresses of the loopback interface.
"""
