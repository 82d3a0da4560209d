"""Models of other programs: import and export, each with a proof that both programs translate alike."""
