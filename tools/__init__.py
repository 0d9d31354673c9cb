"""Scripts for those who write the book. CONTRIBUTING.md says when to run which."""
