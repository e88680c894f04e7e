"""How the process runs: its event loop, tasks, parts, memory and workers."""
