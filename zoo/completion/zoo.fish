# In ~/.config/fish/config.fish: zoo completion fish | source
function __zoo_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l found (zoo --complete $words[2..-1] 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c zoo -f -a '(__zoo_complete)'
