"""Models for other programs, each with a proof that it translates there as it does here."""
