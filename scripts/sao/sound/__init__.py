"""From sound files to samples, levels and spectra. numpy only."""
