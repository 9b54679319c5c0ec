"""Speed and memory of the installed command, as ratios within one run: `make bench`, results in `bench/README.md`."""
