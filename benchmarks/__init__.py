"""Times, counts and checks of the project against baselines; every program runs as `python -m benchmarks.NAME`."""
