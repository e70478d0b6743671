"""The parity report for people, made from its `report.json` alone."""
