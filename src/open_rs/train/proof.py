"""The proof: the same held-out problems before and after training, and what the difference is worth."""
