# Completion for fish: commands, and the options that each command's --help lists.
function __facet_commands
    facet --help 2>/dev/null | string match -rg '^  ([a-z][a-z-]*) +(.*)' | while read -l name; read -l help; printf '%s\t%s\n' $name $help; end
end
function __facet_options
    set -l words (commandline -opc)
    set -l command $words[2]
    test "$command" = eval; and set command $command $words[3]
    facet $command --help 2>/dev/null | string match -rag '(?:^|[ ,])(--?[a-z][a-z0-9-]*)'
end
complete -c facet -n 'test (count (commandline -opc)) -eq 1' -f -a '(__facet_commands)'
function __facet_kinds
    facet eval --help 2>/dev/null | string match -rg '^  ([a-z][a-z-]*) +(.*)' | while read -l name; read -l help; printf '%s\t%s\n' $name $help; end
end
complete -c facet -n 'test (count (commandline -opc)) -eq 2; and test (commandline -opc)[2] = eval' -f -a '(__facet_kinds)'
complete -c facet -n 'test (count (commandline -opc)) -gt 1; and string match -q -- "-*" (commandline -ct)' -f -a '(__facet_options)'
