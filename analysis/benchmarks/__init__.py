"""How fast bayes_clip is, beside its peers and beside what the machine could do; see README.md here."""
