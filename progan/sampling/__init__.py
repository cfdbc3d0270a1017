"""Images of a trained generator: from seeds, along walks, as videos."""
