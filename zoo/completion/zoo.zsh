# In ~/.zshrc, after compinit: source <(zoo completion zsh)
_zoo() {
  local -a found
  found=(${(f)"$(zoo --complete "${(@)words[2,CURRENT]}" 2>/dev/null)"})
  if (( ! ${#found} )); then
    [[ $words[CURRENT] == *=* ]] && compset -P '*='
    _files
    return
  fi
  compadd -S '' -- ${(M)found:#*[=.]}
  compadd -- ${found:#*[=.]}
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -u }
compdef _zoo zoo
