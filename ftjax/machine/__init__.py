"""The machine: devices, threads, memory, files."""
