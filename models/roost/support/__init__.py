"""What every layer stands on: clock, configuration, wire formats, metrics, processes."""
