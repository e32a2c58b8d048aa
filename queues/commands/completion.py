"""`completion`: a short name for the command line in a shell, and completion by the Tab key.

A shell completes by a program's name, and `python -m queues` has none of its own: completion for
it would be completion for every use of `python`. So the script defines the name `queues`.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from string import Template

from queues.commands.output import write

# Where the shell's words come from, and that words are asked for: the protocol is typer's.
COMPLETE_VARIABLE = "_QUEUES_COMPLETE"
ROOT = Path(__file__).parent.parent.parent

# For bash, and for zsh, which can read bash's.
SCRIPT = Template("""\
# eval "$$(python -m queues completion)" in ~/.bashrc or ~/.zshrc
if [ -n "$${ZSH_VERSION-}" ]; then
    autoload -U +X compinit bashcompinit && compinit -u && bashcompinit
fi
queues() {
    PYTHONPATH=$root $python -m queues "$$@"
}
_queues_completion() {
    local IFS=$$'\\n'
    COMPREPLY=( $$(PYTHONPATH=$root COMP_WORDS="$${COMP_WORDS[*]}" COMP_CWORD="$$COMP_CWORD" \\
        $variable=complete_bash $python -m queues 2>/dev/null) )
}
complete -o default -F _queues_completion queues
""")


def completion() -> None:
    """Print a script for bash and zsh: the name `queues`, with completion."""
    write(
        SCRIPT.substitute(
            root=shlex.quote(str(ROOT)),
            python=shlex.quote(sys.executable),
            variable=COMPLETE_VARIABLE,
        )
    )
