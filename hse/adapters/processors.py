"""How much of the machine that this process runs on may be kept busy for long."""

import os

# What takes its time leaves the other half to devices, and to people who wait for something shorter.
HALF_OF_PROCESSORS = max(1, len(os.sched_getaffinity(0)) // 2)
