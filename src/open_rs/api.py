"""The verbs for notebooks: `from open_rs import train, evaluate, curate, grade`. Each is what the command of that name does."""
