"""The checks before money is spent: prompt, rewards, memory, time and dollars of a recipe."""
