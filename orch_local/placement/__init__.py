"""What models need and which one runs where and when: memory, time, machine. Pure."""
