# In ~/.bashrc: source <(zoo completion bash)
_zoo() {
  local words line=${COMP_LINE:0:COMP_POINT} IFS=$' \t\n'
  read -ra words <<< "$line"
  [[ $line == *[[:space:]] ]] && words+=("")
  local last=${words[${#words[@]}-1]}
  IFS=$'\n'
  COMPREPLY=($(zoo --complete "${words[@]:1}" 2>/dev/null))
  if [[ $last == *=* && $COMP_WORDBREAKS == *=* ]]; then
    COMPREPLY=("${COMPREPLY[@]#*=}")  # what stands before = is a word of its own
  fi
  if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=.] ]]; then
    compopt -o nospace 2>/dev/null
  fi
}
complete -o bashdefault -o default -F _zoo zoo
