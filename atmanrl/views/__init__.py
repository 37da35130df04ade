"""How the saliency of a trace looks: as a figure, as a page and in a terminal. No torch here."""
