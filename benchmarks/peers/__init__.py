"""The parts of benchmarks/peers.py: a job and its turns, the processes, the peers, what is mended, the report."""
