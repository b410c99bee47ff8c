"""Command lines, files, tables, names and seeds: helpers that know nothing about audio or models. All rooms use them."""
