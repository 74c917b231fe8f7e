"""Side-by-side measurements, each beside a real peer; `python -m benchmarks` runs them all."""
