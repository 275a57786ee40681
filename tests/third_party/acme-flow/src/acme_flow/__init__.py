"""What a stranger adds to flowcore, written against its public names alone."""
