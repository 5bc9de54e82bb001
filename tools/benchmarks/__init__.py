"""What `tools/bench.py` times: scenes, cases, yardsticks."""
