"""The lab: two or more regions on one machine, with real processes and faults on demand."""
