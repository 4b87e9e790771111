"""Runs the blocks of README.md and docs/*.md as a reader would, from the top of a page to its end.

The blocks of a page run in one folder, which is empty at first:

    ```python                    in one namespace, as in a notebook
    ```sh                        by bash, which stops at the first command that fails; `fedopt` is on PATH
    ```toml title="name.toml"    writes that file; so does any language with a title
    ```toml                      must be valid TOML and, if it has an experiment's sections, a valid experiment
    ```json                      must be valid JSON
    ```text                      is output; after the line <!-- checked --> it must be that of the block before it,
                                 where a line of three dots stands for any lines, and three dots in a line for any
                                 text; after <!-- checked but for numbers --> every number stands for any other
    <!-- not run: reason -->     on the line before a block that cannot run in a test

`python -m tests.docs` counts them.
"""
