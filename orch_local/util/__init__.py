"""What every layer may use: text made harmless, child processes, locks, the offline guard."""
