"""Speed: selections, attention kernels on a GPU, and the emulator."""
