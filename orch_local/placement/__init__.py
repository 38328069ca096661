"""What models need and which one runs where and when: memory, time, machine. Pure."""

__all__ = [
    "estimates",
    "hardware_notes",
    "machine",
    "placing",
    "replicas",
]
