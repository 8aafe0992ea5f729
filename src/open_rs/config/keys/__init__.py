"""What is known of the keys of TRL, transformers, open-r1 and open-rs: versions, defaults, and their fate here."""
