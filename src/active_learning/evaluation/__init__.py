"""What a simulation's learning curves say, and how surely: NumPy and pandas alone."""
