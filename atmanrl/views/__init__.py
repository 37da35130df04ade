"""Views of a trace and its saliency: a figure, an HTML page, and text for a terminal. Nothing here imports torch."""
