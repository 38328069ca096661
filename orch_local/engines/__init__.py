"""The `Engine` protocol and its implementations. Each engine module alone imports its library."""
