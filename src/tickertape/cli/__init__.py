"""The command line: ``tickertape``."""
