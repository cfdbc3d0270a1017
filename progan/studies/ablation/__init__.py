"""The ablation study of table 1: its rows, their training, the report."""
