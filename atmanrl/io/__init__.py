"""Reading and writing: files that appear whole or not at all, JSON lines, records, and text made safe for where it goes."""
