"""Mode recovery with small discriminators (appendix E)."""
