"""The commands of `atmanrl`, a file or a folder each, with `main(args) -> int`. Nothing else knows of arguments."""
