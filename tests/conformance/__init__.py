"""The gateway between programs that no one here wrote: h2spec, gRPC interop, grpcurl, curl, ...

``python -m tests.conformance`` (``make conformance``) builds what is written in Go, runs every
suite and renews ``docs/conformance.md``. The tests beside it hold the same suites to their counts;
they are skipped until the programs are built, so that ``make test`` needs neither Go nor a network.
"""
