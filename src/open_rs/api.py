"""The verbs for notebooks: `from open_rs import train, evaluate, curate, grade`. Each does what its command does."""
