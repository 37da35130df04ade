"""The options of `fit`, `validate`, `test` and `predict`, read from the source of the classes that take them.

Importing these classes takes torch and seconds. Their names, types, defaults and descriptions stand in their source, so a
misspelt option is refused, and `--help` is answered, before anything of that is imported.
"""

OPTIONS_ARE = "--help lists the options that matter most, --help_all every one, --print_config a config's values."
"""What stands below an error in an option."""
