"""The figures, as ratios in one run. None is a test; `make bench` prints them."""
