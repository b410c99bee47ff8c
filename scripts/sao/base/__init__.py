"""Command lines, files, tables, names and seeds. Knows neither audio nor models; every other room builds on it."""
