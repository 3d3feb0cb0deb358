"""One small module for each framework or library; import the one that you need by its own name."""
