"""What the pages of the explorer are made of: frame, controls, cached tables, charts and cards."""
