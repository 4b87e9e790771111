"""Many clients on one machine: virtual clients, studies, benchmarks."""
