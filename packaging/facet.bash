# Completion for bash: commands, and the options that each command's --help lists.
_facet() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} cmd=${COMP_WORDS[1]} cmds
    COMPREPLY=()
    cmds=("$cmd")
    [ "$cmd" = eval ] && [ "$COMP_CWORD" -gt 2 ] && cmds+=("${COMP_WORDS[2]}")
    if [ "$COMP_CWORD" -eq 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W "$("${COMP_WORDS[0]}" --help 2>/dev/null | sed -n 's/^  \([a-z][a-z-]*\) .*/\1/p') --help --version" -- "$cur")
        return
    fi
    if [ "$cmd" = eval ] && [ "$COMP_CWORD" -eq 2 ]; then
        mapfile -t COMPREPLY < <(compgen -W "$("${COMP_WORDS[0]}" eval --help 2>/dev/null | sed -n 's/^  \([a-z][a-z-]*\) .*/\1/p') --help" -- "$cur")
        return
    fi
    case $prev in
        --device) mapfile -t COMPREPLY < <(compgen -W "auto cpu cuda ref" -- "$cur"); return ;;
        --spec) mapfile -t COMPREPLY < <(compgen -W "none mtp dflash ngram auto" -- "$cur"); return ;;
        --kv) mapfile -t COMPREPLY < <(compgen -W "exact balanced small tiny" -- "$cur"); return ;;
        --cache-type-[kv]|-ctk|-ctv) mapfile -t COMPREPLY < <(compgen -W "f16 q8_0 q4_0 tq3_0 rot_q8_0 rot_q4_0 f32" -- "$cur"); return ;;
        --log) mapfile -t COMPREPLY < <(compgen -W "text json none" -- "$cur"); return ;;
        --cors) mapfile -t COMPREPLY < <(compgen -W "local none" -- "$cur"); return ;;
    esac
    if [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$("${COMP_WORDS[0]}" "${cmds[@]}" --help 2>/dev/null | grep -oE -- '(^|[ ,])--?[a-z][a-z0-9-]*' | tr -d ' ,')" -- "$cur")
    else
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
    fi
}
complete -o filenames -F _facet facet
